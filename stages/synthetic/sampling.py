"""Drawing text from a model in this process: batched, and the same for a prompt in whatever batch it stands.

Each prompt has a random generator of its own. A token is drawn as the greatest of logits / temperature + Gumbel noise
(Gumbel, 1954; Maddison et al., 2014, arXiv:1411.0030), so that greedy decoding of the noisy logits is sampling.
Shapes: B prompts, V words in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.generation.decoding import stop_token_ids


@dataclass(frozen=True)
class Written:
    """A continuation; ended: by an end token, not by the limit. confidence: the probability of its least likely token,
    the end among them, where it was decoded greedily; else 1."""

    text: str
    num_tokens: int
    ended: bool
    confidence: float = 1.0


class _GumbelNoise:
    """A logits processor: [B, V] -> [B, V], row by row."""

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        uniform = torch.stack([torch.rand(scores.shape[-1], generator=own) for own in self._generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() / self._temperature + noise.to(scores.device)


class _Confidence:
    """A logits processor that changes nothing and notes the probability of the likeliest token, per step and row."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.steps.append(scores.float().softmax(-1).amax(-1).tolist())
        return scores


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    temperature: float,
    max_new_tokens: int,
) -> list[Written]:
    """Continues every prompt (token ids), each with the generator of its seed. temperature 0 is greedy."""
    import torch
    from transformers import GenerationConfig

    stops = sorted(stop_token_ids(model, tokenizer))
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[stops[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=stops[0], use_cache=True
    )
    confidence = _Confidence()
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=[_GumbelNoise(seeds, temperature) if temperature > 0 else confidence],
        )
    likeliest = list(zip(*confidence.steps, strict=True)) or [()] * len(prompts)
    return [_written(tokenizer, *row, stops) for row in zip(written[:, width:].tolist(), likeliest, strict=True)]


def _written(tokenizer: Any, ids: list[int], likeliest: Sequence[float], stops: Sequence[int]) -> Written:
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    text: str = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Written(text, end, end < len(ids), min(likeliest[: end + 1], default=1.0))
