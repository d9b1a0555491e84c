"""Merging is exact, and a merge that is not is noticed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import DataError
from stages.core.schema import Lora
from stages.training.lora import attach_lora
from stages.training.merging import Comparison, compare, merge_in_place, prompt_logits

torch = pytest.importorskip("torch")

PROMPTS = [[3, 1, 4, 1, 5, 9], [2, 6, 5], [7]]


def adapted(tiny_base: Path, dtype: Any) -> Any:
    """The tiny base with an adapter that says something."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base / "models/base/tiny", dtype=dtype)
    torch.manual_seed(1)
    model = attach_lora(model, Lora(r=4, alpha=12, modules=["up_proj", "down_proj"])).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_float32_merge_gives_the_same_logits(tiny_base: Path) -> None:
    model = adapted(tiny_base, torch.float32)
    with model.disable_adapter():
        base = prompt_logits(model, PROMPTS)
    reference = prompt_logits(model, PROMPTS)
    merged = prompt_logits(merge_in_place(model), PROMPTS)
    assert compare(reference, merged).max_logit_difference < 1e-5
    assert compare(base, merged).max_logit_difference > 1e-2  # the adapter is not nothing
    assert compare(reference, merged).num_tokens == 10


def test_bfloat16_weights_are_rounded_once(tiny_base: Path) -> None:
    model = adapted(tiny_base, torch.bfloat16)
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    delta = 12 / 4 * layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    exact = (layer.base_layer.weight.double() + delta).detach()
    merged = merge_in_place(model).model.layers[1].mlp.up_proj.weight
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, exact.float().bfloat16())


def test_logits_are_computed_in_float32_and_leave_the_weights_as_they_were(tiny_base: Path) -> None:
    model = adapted(tiny_base, torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    narrow = prompt_logits(model, PROMPTS)
    assert all(p.dtype == before[name].dtype and torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert compare(narrow, prompt_logits(model.float(), PROMPTS)).max_logit_difference < 1e-5


def test_compare_counts_differences_and_agreement() -> None:
    a = [torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    b = [torch.tensor([[1.0, 2.5], [3.0, 4.0]]), torch.tensor([[0.0, 1.0]])]
    assert compare(a, b) == Comparison(4.0, pytest.approx(2 / 3), 3)


def test_a_nan_is_never_near_enough() -> None:
    broken = [torch.tensor([[math.nan, 2.0]]), torch.tensor([[1.0, 2.0]])]
    comparison = compare([torch.tensor([[1.0, 2.0]])] * 2, broken)
    assert math.isnan(comparison.max_logit_difference)
    with pytest.raises(DataError):
        comparison.check(max_logit_difference=1e9, min_agreement=0.0)


@pytest.mark.parametrize(("allowed", "agreement"), [(0.4, 0.9), (0.6, 0.99)])
def test_too_far_is_refused_with_both_figures(allowed: float, agreement: float) -> None:
    comparison = Comparison(0.5, 0.98, 100)
    comparison.check(0.5, 0.98)
    with pytest.raises(DataError, match=r"up to 0.5 .* 98.00% of greedy"):
        comparison.check(allowed, agreement)


def test_comparing_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 prompts"):
        compare([], [])
