"""The merge and the round trip are measured, and one that is too far off is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import DataError
from stages.core.schema import Model
from stages.export.adapters import Adapter, read_adapter
from stages.export.comparison import Reference, compare_files, measure_merges, merged_in_memory, nearness
from stages.export.gguf_file import write_gguf
from stages.export.golden import Golden, check_prompts, greedy_answers
from stages.export.tensor_files import Weights
from stages.prompts.chat import ChatFormat
from stages.training.lora import weights_sha256
from stages.training.merging import prompt_logits

torch = pytest.importorskip("torch")

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [200, 100, 7, 257], list(range(60, 120))]


def read(folder: Path, base: Path) -> Adapter:
    return read_adapter(folder, weights_sha256(base), Weights(base).entries)


def golden_of(tokenizer: Any, *questions: str) -> list[Golden]:
    chat = ChatFormat(tokenizer)
    turns = [[{"role": "user", "content": question}] for question in questions]
    return [Golden(str(n), turn, chat.prompt_text(turn), chat.prompt_ids(turn)) for n, turn in enumerate(turns)]


def test_a_lora_merge_is_what_was_trained(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path], model_config: Model
) -> None:
    base = build_model()
    (found,) = measure_merges(base, model_config, read(build_adapter(base), base), PROMPTS, 0.99)
    assert (found.base, found.agreement, found.num_tokens) == ("stored", 1.0, 72)
    assert found.mean_kl < 1e-9
    assert found.max_logit_difference < 1e-3


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_qlora_is_nearer_to_the_dequantised_base(
    build_model: Callable[..., Path],
    build_adapter: Callable[..., Path],
    model_config: Model,
    dtype: str,
    near: float,
) -> None:
    base = build_model(dtype=dtype)
    adapter = read(build_adapter(base, quantise=True), base)
    assert adapter.quantised
    best, other = measure_merges(base, replace(model_config, dtype=dtype), adapter, PROMPTS, 0.9)
    assert (best.base, other.base) == ("dequantised", "stored")
    assert best.mean_kl < near < other.mean_kl
    assert best.agreement > other.agreement


def test_a_merge_that_agrees_too_little_is_refused(
    build_model: Callable[..., Path],
    build_adapter: Callable[..., Path],
    model_config: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = build_model()
    adapter = read(build_adapter(base, quantise=True), base)
    monkeypatch.setattr("stages.export.comparison.BASES", ("stored",))  # as if the nearer base did not exist
    with pytest.raises(DataError, match=r"merged, \d\d\.\d+% of greedy next tokens .*at least 99.00%"):
        measure_merges(base, model_config, adapter, PROMPTS, 0.99)


def test_mean_kl_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    found = nearness("stored", [p.log() + 3], [q.log()])  # a constant changes no distribution
    assert found.mean_kl == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2, rel=1e-6)
    assert found.num_tokens == 2


def test_files_that_lose_nothing_must_be_equal(
    build_model: Callable[..., Path], model_config: Model, merging_tokenizer: Any
) -> None:
    base = build_model()
    model = merged_in_memory(base, model_config, None, "stored")
    golden = golden_of(merging_tokenizer, "Who?", "the 12 mills")
    answers = greedy_answers(model, merging_tokenizer, golden, 8)
    golden = [replace(one, answer=answer) for one, answer in zip(golden, answers, strict=True)]
    reference = Reference(prompt_logits(model, PROMPTS), golden, [])
    files = [base / "gguf" / f"m.{kind}.gguf" for kind in ("F32", "Q4_0")]
    files[0].parent.mkdir()
    for file, kind in zip(files, ("F32", "Q4_0"), strict=True):
        write_gguf(base, file, kind, "m")
    whole, exact, narrow = compare_files(base, files, model_config, reference, PROMPTS, 8, 1e-5)
    assert [trip.file for trip in (whole, exact, narrow)] == ["safetensors", "m.F32.gguf", "m.Q4_0.gguf"]
    assert whole.max_logit_difference <= 1e-5
    assert exact.max_logit_difference <= 1e-5
    assert (exact.equal_answers, exact.num_prompts) == (2, 2)
    assert narrow.max_logit_difference > 1e-2
    off = Reference([logits + 1 for logits in reference.logits], golden, [])
    with pytest.raises(DataError, match=r"safetensors read back is not the model that was merged"):
        compare_files(base, files, model_config, off, PROMPTS, 8, 1e-5)
    other = Reference(reference.logits, [replace(golden[0], answer="something else"), golden[1]], [])
    with pytest.raises(DataError, match=r"'equal_answers': 1, 'num_prompts': 2"):
        compare_files(base, files, model_config, other, PROMPTS, 8, 1e-5)


def test_another_template_and_other_ids_are_named(merging_tokenizer: Any) -> None:
    from copy import deepcopy

    (one,) = golden_of(merging_tokenizer, "the mill")
    check_prompts(merging_tokenizer, [one], "x")
    with pytest.raises(DataError, match=r"m.gguf: prompt 0 has other token ids from place 5 on"):
        check_prompts(
            merging_tokenizer, [replace(one, input_ids=[*one.input_ids[:5], 7, *one.input_ids[6:]])], "m.gguf"
        )
    other = deepcopy(merging_tokenizer)
    other.chat_template = other.chat_template.replace("\n", " ")
    with pytest.raises(DataError, match=r"x: the chat template that was read back renders prompt 0 differently"):
        check_prompts(other, [one], "x")
