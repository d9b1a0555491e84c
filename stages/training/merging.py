"""Merging an adapter into its base, and proving that the result is the same model.

Merged weight = W + alpha / r * B @ A, computed in float32 and rounded once to the base's dtype. One layer at a time is
in float32, so that an 8B model needs its own size and a little more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from stages.core.errors import DataError


@dataclass(frozen=True)
class Comparison:
    """How near two models are: over `num_tokens` positions, the largest difference of a logit, and the share of
    positions where the most likely next token is the same."""

    max_logit_difference: float
    agreement: float
    num_tokens: int

    def check(self, max_logit_difference: float, min_agreement: float) -> None:
        """Raises DataError where the merged model is too far from base + adapter. (A NaN is always too far.)"""
        if not (self.max_logit_difference <= max_logit_difference and self.agreement >= min_agreement):
            raise DataError(
                f"the merged model is not base + adapter: logits differ by up to {self.max_logit_difference:.3g} "
                f"(allowed: {max_logit_difference:.3g}), {self.agreement:.2%} of greedy next tokens agree "
                f"(at least {min_agreement:.2%}); nothing was written. Look for overflow in {asdict(self)}, or allow "
                "more for this dtype in conf/merge_book"
            )


def merge_in_place(model: Any) -> Any:
    """The plain model with the adapter in its weights; `model` (a PeftModel) is used up. ValueError for NaN weights."""
    import torch
    from peft.tuners.lora import LoraLayer

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLayer):
                weight = module.get_base_layer().weight
                dtype = weight.dtype
                weight.data = weight.data.float()
                module.merge(safe_merge=True)
                weight.data = weight.data.to(dtype)
    return model.unload()


@contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """The model computes in float32 with the weights it has; one module's weights at a time are widened.

    In bfloat16 the rounding of activations drowns what a comparison of weights is after: base + adapter and an exact
    merge then agree on 97 % of greedy tokens only.
    """
    narrow: dict[Any, Any] = {}

    def widen(module: Any, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            narrow[parameter] = parameter.data
            parameter.data = parameter.data.float()

    def restore(module: Any, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = narrow.pop(parameter)

    owners = [m for m in model.modules() if any(p.dtype.itemsize < 4 for p in m.parameters(recurse=False))]
    hooks = [m.register_forward_pre_hook(widen) for m in owners] + [m.register_forward_hook(restore) for m in owners]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def prompt_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """Each prompt's logits, [T, V] in float32 on the CPU: the model they came from may go before they are compared."""
    import torch

    with torch.no_grad(), computing_in_float32(model):
        ids = (torch.tensor([list(prompt)], device=model.device) for prompt in prompts)
        return [model(input_ids=one, use_cache=False).logits[0].float().cpu() for one in ids]


def compare(reference: Sequence[Any], other: Sequence[Any]) -> Comparison:
    """Compares logits of the same prompts, a prompt at a time."""
    import torch

    if not reference or len(reference) != len(other):
        raise ValueError(f"{len(reference)} prompts against {len(other)}")
    difference, num_equal, num_tokens = torch.zeros(()), 0, 0
    for a, b in zip(reference, other, strict=True):
        difference = torch.maximum(difference, (a - b).abs().max())  # a NaN stays
        num_equal += int((a.argmax(-1) == b.argmax(-1)).sum())
        num_tokens += len(a)
    return Comparison(float(difference), num_equal / num_tokens, num_tokens)
