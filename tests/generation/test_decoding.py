from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.core.errors import DataError
from stages.generation.decoding import completion_losses, generate, stop_token_ids, stream
from stages.prompts.renderer import TokenisedExample

VOCABULARY = 40
END = 2


class NumberTokenizer:
    eos_token_id = END
    chat_template = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class Scripted:
    """Continues every prompt with the script that its first token names; reads positions, keeps a real cache."""

    device = torch.device("cpu")
    config = None
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, scripts: dict[int, list[int]], vocabulary: int = 300) -> None:
        self.scripts, self.vocabulary, self.batch_sizes = scripts, vocabulary, list[int]()

    def __call__(self, input_ids: Any, attention_mask: Any, position_ids: Any, past_key_values: Any, **_: Any) -> Any:
        self.batch_sizes.append(len(input_ids))
        keys, _values = past_key_values.update(
            input_ids[:, None, :, None].float(), input_ids[:, None, :, None].float(), 0
        )
        logits = torch.zeros(len(input_ids), 1, self.vocabulary)
        for row, (seen, mask) in enumerate(zip(keys[:, 0, :, 0].long().tolist(), attention_mask.tolist(), strict=True)):
            real = [token for token, keep in zip(seen, mask, strict=True) if keep]
            assert position_ids[row, -1] == len(real) - 1
            written = real[real.index(0) + 1 :] if 0 in real else []
            logits[row, 0, [*self.scripts[real[0]], END][len(written)]] = 1.0
        return SimpleNamespace(logits=logits)


def prompts_of_many_lengths(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(3, VOCABULARY) for _ in range(rng.randint(1, 30))] for _ in range(count)]


@torch.no_grad()
def greedy_without_cache(model: Any, prompt: list[int], max_new_tokens: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == END:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_batched_generation_equals_greedy_decoding_one_by_one(llama: Any) -> None:
    prompts = prompts_of_many_lengths(23)
    expected = [NumberTokenizer().decode(greedy_without_cache(llama, prompt, 20)) for prompt in prompts]
    assert len({len(text.split()) for text in expected}) > 2  # some stop early, some do not
    for batch_size in (1, 4, 64):
        assert generate(llama, NumberTokenizer(), prompts, 20, batch_size) == expected


def test_generation_stops_at_its_end_token_and_finished_rows_leave_the_batch() -> None:
    model = Scripted({10: [5, 6, 7], 11: [5], 12: []})
    texts = generate(model, NumberTokenizer(), [[12, 0], [10, 9, 9, 0], [11, 9, 0]], 10, 3)
    assert texts == ["", "5 6 7", "5"]
    assert model.batch_sizes == [3, 2, 1, 1]


def test_generation_stops_at_max_new_tokens() -> None:
    model = Scripted({10: [5, 6, 7, 8]})
    assert generate(model, NumberTokenizer(), [[10, 0]], 2, 8) == ["5 6"]
    assert len(model.batch_sizes) == 2


def test_nothing_to_generate() -> None:
    assert generate(Scripted({}), NumberTokenizer(), [], 5, 8) == []
    assert completion_losses(Scripted({}), NumberTokenizer(), [], 8) == []


def test_an_empty_prompt_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="prompt 1 is empty"):
        generate(Scripted({}), NumberTokenizer(), [[3], []], 5, 8)


def test_losses_of_a_padded_batch_equal_those_of_each_example_alone(llama: Any) -> None:
    rng = random.Random(1)
    prompts = prompts_of_many_lengths(15, seed=1)
    examples = [TokenisedExample(p, rng.randint(1, len(p) - 1)) for p in prompts if len(p) > 1]
    expected = []
    for example in examples:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logits = llama(input_ids=ids).logits[0, :-1].log_softmax(-1)
        nll = -logits[torch.arange(len(logits)), ids[0, 1:]]
        expected.append(float(nll[-example.num_completion_tokens :].sum()))
    for batch_size in (1, 4, 32):
        losses = completion_losses(llama, NumberTokenizer(), examples, batch_size)
        assert [n for _, n in losses] == [example.num_completion_tokens for example in examples]
        assert [nll for nll, _ in losses] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("text", ["Bäko müsste", "Привет, мир", "a\N{ROCKET}\N{GRINNING FACE}b", "", "e\u0301"])
def test_streamed_pieces_join_to_the_text_and_split_no_character(text: str, byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer
    pieces = list(stream(Scripted({10: tokenizer.encode(text)}), tokenizer, [10, 0], 100))
    assert "".join(pieces) == text
    assert all(piece and "\ufffd" not in piece for piece in pieces)
    assert len(pieces) == len(text)  # each character as soon as it is complete


def test_a_character_cut_off_by_the_limit_is_shown_as_the_replacement_character(byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer
    pieces = list(stream(Scripted({10: tokenizer.encode("aя")}), tokenizer, [10, 0], 2))
    assert pieces == ["a", "\ufffd"]


def test_stray_bytes_inside_a_text_do_not_hold_it_up(byte_tokenizer: Any) -> None:
    script = [ord("a") + 3, 0xE2 + 3, ord("b") + 3]
    assert list(stream(Scripted({10: script}), byte_tokenizer, [10, 0], 9)) == ["a", "\ufffdb"]


def test_streaming_equals_generation(llama: Any, byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer
    for prompt in prompts_of_many_lengths(5, seed=2):
        assert "".join(stream(llama, tokenizer, prompt, 12)) == generate(llama, tokenizer, [prompt], 12, 1)[0]


def test_sampling_follows_the_seed_and_differs_from_greedy(llama: Any, byte_tokenizer: Any) -> None:
    def sample(seed: int) -> str:
        torch.manual_seed(seed)
        return "".join(stream(llama, byte_tokenizer, [5, 6, 7], 30, temperature=5.0))

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) == 4


def test_streaming_leaves_inference_mode_between_pieces(llama: Any, byte_tokenizer: Any) -> None:
    for _ in stream(llama, byte_tokenizer, [5, 6], 3):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("configured", "expected"), [(None, {END}), (7, {END, 7}), ([7, 8], {END, 7, 8})])
def test_stop_tokens_of_the_generation_config_count(configured: Any, expected: set[int]) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert stop_token_ids(model, NumberTokenizer()) == expected


def test_the_end_of_turn_of_the_chat_template_stops_too() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = ["<|pad|>", "<|eos|>", "<|turn|>", "question", "answer"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<|pad|>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|eos|>", additional_special_tokens=["<|turn|>"]
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|turn|>{% endfor %}"
    assert stop_token_ids(SimpleNamespace(), tokenizer) == {1, 2}
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert stop_token_ids(SimpleNamespace(), tokenizer) == {1}
