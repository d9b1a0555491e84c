"""Rows that join and leave at any moment get what they would get alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.generation import batched_decoding
from stages.generation.batched_decoding import BatchedDecoder, Continuation, Row
from stages.generation.decoding import generate
from stages.generation.prefix_cache import PrefixCache

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
@given(st.integers(0, 10**6), st.sampled_from([0, 3000, 10**6]), st.integers(1, 9), st.sampled_from([1, 20, 400]))
def test_what_was_read_before_is_not_read_again_and_the_texts_are_the_same(
    llama: Any, byte_tokenizer: Any, seed: int, max_bytes: int, num_read: int, num_together: int
) -> None:
    """Turns of chats and several texts of one prompt, read in pieces of any size, alone or together."""
    rng = random.Random(seed)
    decoder = BatchedDecoder(llama, byte_tokenizer, 5, 1000, PrefixCache(max_bytes), "one")
    written, rows = Written(decoder), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched_decoding, "NUM_READ", num_read)
        patch.setattr(batched_decoding, "NUM_TOGETHER", num_together)
        for _ in range(14):
            before = rng.choice([[], *([*row.asked.prompt_ids, *row.ids] for row in rows)])
            prompt = [*before[: rng.choice([len(before), rng.randint(0, len(before))])], *random_prompt(rng)[:8]]
            asked = Continuation(prompt[:60], rng.randint(1, 20))
            rows += [decoder.add(asked) for _ in range(rng.choice([1, 1, 3]))]
            if rng.random() < 0.2:
                decoder.cancel(rows[-1])
            for _ in range(rng.choice([0, 0, 1, 2, 7])):
                written.step()
        written.finish()
    for row in rows:
        (expected,) = generate(llama, byte_tokenizer, [row.asked.prompt_ids], row.asked.max_new_tokens, 1)
        assert row.cancelled or written.texts[row] == expected


def widths(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Grows with each pass of the model by (rows, tokens read of each)."""
    shapes: list[tuple[int, int]] = []
    forward = model.forward

    def noted(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", noted)
    return shapes


def test_several_texts_of_one_prompt_read_it_once(
    llama: Any, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = widths(llama, monkeypatch)
    decoder = BatchedDecoder(llama, byte_tokenizer, prefixes=PrefixCache(10**6))
    rows = [decoder.add(Continuation([5] * 30, 4, 1.0, 1.0, seed)) for seed in range(4)]
    Written(decoder).finish()
    assert shapes[:2] == [(1, 30), (3, 1)]
    other = decoder.add(Continuation([*rows[0].asked.prompt_ids, *rows[0].ids[:3], 7, 7], 1))  # the next turn
    Written(decoder).finish()
    assert shapes[-1] == (1, 2)
    assert len(other.ids) <= 1


def test_rows_that_read_together_are_not_padded(
    llama: Any, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 and 9 new tokens behind 20 known ones: both read 9."""
    decoder = BatchedDecoder(llama, byte_tokenizer, prefixes=PrefixCache(10**6))
    decoder.add(Continuation([5] * 20, 1))
    Written(decoder).finish()
    shapes = widths(llama, monkeypatch)
    rows = [decoder.add(Continuation([5] * 20 + [6 + num] * num, 12)) for num in (6, 9)]
    written = Written(decoder).finish()
    assert shapes[0] == (2, 9)
    for row in rows:
        assert [written.texts[row]] == generate(llama, byte_tokenizer, [row.asked.prompt_ids], 12, 1)


def test_a_long_prompt_does_not_hold_up_what_is_being_written(
    llama: Any, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_decoding, "NUM_READ", 10)
    decoder = BatchedDecoder(llama, byte_tokenizer)
    first = decoder.add(Continuation([9, 30, 22], 30))
    decoder.step()
    second = decoder.add(Continuation([6] * 35, 5))
    counts = []
    while not second.ids:
        decoder.step()
        counts.append((len(first.ids), second.num_left))
    assert counts == [(2, 25), (3, 15), (4, 5), (5, 0)]
    third = decoder.add(Continuation([7] * 35, 5))
    decoder.step()
    decoder.cancel(third)
    written = Written(decoder).finish()
    assert third not in written.texts and not decoder.busy
    (expected,) = generate(llama, byte_tokenizer, [first.asked.prompt_ids], 30, 1)
    assert byte_tokenizer.decode(first.ids) == expected


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
