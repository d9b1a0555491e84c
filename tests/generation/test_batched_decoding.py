"""Rows that join and leave at any moment get what they would get alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.generation.batched_decoding import BatchedDecoder, Continuation, Row
from stages.generation.decoding import generate

SETTINGS = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Written:
    """What a decoder wrote: text, reason and number of tokens of each row."""

    def __init__(self, decoder: BatchedDecoder) -> None:
        self.decoder = decoder
        self.texts: dict[Row, str] = {}
        self.reasons: dict[Row, str] = {}
        self.num_tokens: dict[Row, int] = {}
        self.batch_sizes: list[int] = []

    def step(self) -> None:
        pieces = self.decoder.step()
        self.batch_sizes.append(len(pieces))
        for row, piece in pieces:
            assert row not in self.reasons, "a piece after the last one"
            self.texts[row] = self.texts.get(row, "") + piece.text
            self.num_tokens[row] = piece.num_completion_tokens
            if piece.finish_reason:
                self.reasons[row] = piece.finish_reason

    def finish(self) -> Written:
        while self.decoder.busy:
            self.step()
        return self


def random_prompt(rng: random.Random) -> list[int]:
    return [rng.randrange(3, 40) for _ in range(rng.randint(1, 30))]


def written_alone(llama: Any, tokenizer: Any, asked: Continuation) -> tuple[str, str]:
    decoder = BatchedDecoder(llama, tokenizer)
    row = decoder.add(asked)
    written = Written(decoder).finish()
    return written.texts[row], written.reasons[row]


@SETTINGS
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([64, 90, 200, 1000]))
def test_greedy_rows_that_join_at_random_equal_those_decoded_alone(
    llama: Any, byte_tokenizer: Any, seed: int, max_batch_size: int, max_total_tokens: int
) -> None:
    rng = random.Random(seed)
    decoder = BatchedDecoder(llama, byte_tokenizer, max_batch_size, max_total_tokens)
    written, rows = Written(decoder), []
    for _ in range(12):
        rows.append(decoder.add(Continuation(random_prompt(rng), rng.randint(1, 30))))
        for _ in range(rng.choice([0, 0, 1, 2, 7])):
            written.step()
    written.finish()
    for row in rows:
        (expected,) = generate(llama, byte_tokenizer, [row.asked.prompt_ids], row.asked.max_new_tokens, 1)
        assert written.texts[row] == expected
        ended = len(row.ids) < row.asked.max_new_tokens
        assert (written.reasons[row], written.num_tokens[row]) == ("stop" if ended else "length", len(row.ids))
    assert max(written.batch_sizes) <= max_batch_size


@SETTINGS
@given(st.integers(0, 10**6))
def test_drawn_rows_are_the_same_in_any_company(llama: Any, byte_tokenizer: Any, seed: int) -> None:
    rng = random.Random(seed)
    decoder = BatchedDecoder(llama, byte_tokenizer, max_batch_size=5)
    written, rows = Written(decoder), []
    for _ in range(8):
        warmth = {"temperature": rng.choice([0.0, 0.7, 3.0]), "top_p": rng.choice([1.0, 0.9, 0.3])}
        rows.append(decoder.add(Continuation(random_prompt(rng), 15, **warmth, seed=rng.randrange(2**63))))
        for _ in range(rng.choice([0, 1, 4])):
            written.step()
    written.finish()
    for row in rows:
        assert (written.texts[row], written.reasons[row]) == written_alone(llama, byte_tokenizer, row.asked)


@SETTINGS
@given(st.integers(0, 10**6))
def test_a_cancelled_row_leaves_and_the_others_notice_nothing(llama: Any, byte_tokenizer: Any, seed: int) -> None:
    rng = random.Random(seed)
    decoder = BatchedDecoder(llama, byte_tokenizer, max_batch_size=4)
    written = Written(decoder)
    rows = [decoder.add(Continuation(random_prompt(rng), 12)) for _ in range(9)]
    cancelled = {rows[n]: written.texts.get(rows[n]) for n in rng.sample(range(9), 4)}
    for row in cancelled:
        written.step()
        if row not in written.reasons:
            cancelled[row] = written.texts.get(row)
            decoder.cancel(row)
    written.finish()
    for row in rows:
        if row in cancelled and row not in written.reasons:
            assert written.texts.get(row) == cancelled[row]  # not a character after it
        else:
            assert [written.texts[row]] == generate(llama, byte_tokenizer, [row.asked.prompt_ids], 12, 1)


def test_memory_is_bounded_with_padding_and_the_first_to_come_is_the_first_served(
    llama: Any, byte_tokenizer: Any
) -> None:
    decoder = BatchedDecoder(llama, byte_tokenizer, max_batch_size=8, max_total_tokens=40)
    short = [decoder.add(Continuation([5] * 4, 6)) for _ in range(3)]
    long, last = decoder.add(Continuation([6] * 20, 20)), decoder.add(Continuation([5] * 4, 6))
    written = Written(decoder)
    written.step()
    assert set(written.texts) == set(short)  # 4 * 40 would be too much with the long one; the last does not overtake
    while long not in written.texts:
        assert last not in written.texts
        written.step()
    written.finish()
    assert set(written.texts) == {*short, long, last}
    assert list(written.reasons).index(long) < list(written.reasons).index(last)


def test_the_end_and_the_limit_and_a_stop_text(llama: Any, byte_tokenizer: Any) -> None:
    prompt = [9, 30, 22]
    whole, _ = written_alone(llama, byte_tokenizer, Continuation(prompt, 20))
    assert len(whole) >= 6
    assert written_alone(llama, byte_tokenizer, Continuation(prompt, 3)) == (whole[:3], "length")
    stop = whole[3:5]
    assert written_alone(llama, byte_tokenizer, Continuation(prompt, 20, stop=["\x00\x00\x00\x00", stop])) == (
        whole[: whole.index(stop)],
        "stop",
    )


def test_a_small_nucleus_is_greedy_and_a_high_temperature_is_not(llama: Any, byte_tokenizer: Any) -> None:
    greedy, _ = written_alone(llama, byte_tokenizer, Continuation([7, 8, 9], 20))
    narrow = Continuation([7, 8, 9], 20, temperature=2.0, top_p=1e-9, seed=1)
    assert written_alone(llama, byte_tokenizer, narrow)[0] == greedy
    hot = {written_alone(llama, byte_tokenizer, Continuation([7, 8, 9], 20, 5.0, 1.0, seed))[0] for seed in range(5)}
    assert len(hot) == 5


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    from types import SimpleNamespace

    from stages.generation.batched_decoding import choose

    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).expand(4000, -1)
    tokenizer = SimpleNamespace(decode=lambda *_, **__: "")

    def shares(temperature: float, top_p: float) -> list[float]:
        rows = [Row(Continuation([1], 1, temperature, top_p, seed), tokenizer) for seed in range(4000)]
        drawn = choose([probabilities[:1000].log(), probabilities[1000:].log()], rows)
        return [drawn.count(token) / 4000 for token in range(4)]

    assert shares(1.0, 1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)
    assert shares(1.0, 0.8) == pytest.approx([0.625, 0.375, 0, 0], abs=0.025)  # .5 + .3 make up .8
    assert shares(1.0, 0.81) == pytest.approx([0.5263, 0.3158, 0.1579, 0], abs=0.025)
    square = [p * p for p in (0.5, 0.3, 0.15, 0.05)]
    assert shares(0.5, 1.0) == pytest.approx([p / sum(square) for p in square], abs=0.025)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Continuation([], 3), "at least one token"),
        (Continuation([3], 0), "at least one new token"),
        (Continuation([3] * 60, 41), "60 tokens and 41 new ones do not fit into 100"),
    ],
)
def test_what_can_never_be_written_is_refused(
    llama: Any, byte_tokenizer: Any, asked: Continuation, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        BatchedDecoder(llama, byte_tokenizer, max_total_tokens=100).add(asked)


def test_a_window_of_attention_is_kept_across_joins() -> None:
    """Mistral looks back 8 tokens; rows that join late are padded, which must not count."""
    from types import SimpleNamespace

    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    shape = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5}
    model = MistralForCausalLM(MistralConfig(**shape, **heads, sliding_window=8, eos_token_id=None)).eval()
    tokenizer = SimpleNamespace(
        eos_token_id=None, chat_template=None, decode=lambda ids, **_: " ".join(map(str, ids)) + " "
    )
    rng = random.Random(4)
    decoder = BatchedDecoder(model, tokenizer, max_batch_size=3)
    rows, written = [], Written(decoder)
    for _ in range(6):
        rows.append(decoder.add(Continuation(random_prompt(rng), 14)))
        written.step()
        written.step()
    written.finish()
    for row in rows:
        ids = list(row.asked.prompt_ids)
        with torch.no_grad():
            for _ in range(14):
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert row.ids == ids[len(row.asked.prompt_ids) :]
