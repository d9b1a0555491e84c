"""How well a model predicts connected text: negative log-likelihood, perplexity, bits per byte.

    scores = perplexity(model, tokenizer, ["Bako is a mill.", "..."], max_length=256, batch_size=8)
    perplexity_of(scores), bits_per_byte(scores)

Perplexity = exp(nll / tokens) compares models of one tokenizer; bits per byte = nll / (ln 2 * bytes) compares any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNRELATED_CHARS = 20_000
IGNORED = -100


@dataclass(frozen=True)
class TextScore:
    """One text: summed negative log-likelihood in nats, over `num_tokens` predicted tokens."""

    nll: float
    num_tokens: int
    num_bytes: int


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], max_length: int, batch_size: int) -> list[TextScore]:
    """Scores each text on its own, in windows of `max_length` tokens that share one token with the window before.

    So every token is predicted exactly once, but for the first of a text where the tokenizer has no begin token.
    """
    windows = [(n, w) for n, text in enumerate(texts) for w in windows_of(token_ids(tokenizer, text), max_length)]
    windows.sort(key=lambda window: len(window[1]))  # little padding
    nll, num_tokens = [0.0] * len(texts), [0] * len(texts)
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        for (n, window), value in zip(batch, _window_nll(model, [window for _, window in batch]), strict=True):
            nll[n] += value
            num_tokens[n] += len(window) - 1
    return [TextScore(nll[n], num_tokens[n], len(text.encode())) for n, text in enumerate(texts)]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's ids, after the begin token where the tokenizer has one."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def windows_of(ids: Sequence[int], max_length: int) -> list[list[int]]:
    """Windows of at most `max_length` ids; each begins with the last id of the one before."""
    return [list(ids[k : k + max_length]) for k in range(0, max(1, len(ids) - 1), max_length - 1) if len(ids) > 1]


def _window_nll(model: Any, windows: list[list[int]]) -> list[float]:
    """Summed negative log-likelihood of each window's tokens after its first; right padding, so no mask is needed."""
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(window) for window in windows)
    ids = torch.tensor([window + [0] * (width - len(window)) for window in windows], device=model.device)  # [B, T]
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits  # [B, T, V]
        return [
            float(cross_entropy(logits[n, : len(w) - 1].float(), ids[n, 1 : len(w)], reduction="sum"))
            for n, w in enumerate(windows)
        ]


def perplexity_of(scores: Sequence[TextScore]) -> float:
    """Perplexity per token over all texts together."""
    return math.exp(sum(s.nll for s in scores) / sum(s.num_tokens for s in scores))


def bits_per_byte(scores: Sequence[TextScore]) -> float:
    """Bits per UTF-8 byte over all texts together."""
    return sum(s.nll for s in scores) / math.log(2) / sum(s.num_bytes for s in scores)


def unrelated_texts(num_chars: int = UNRELATED_CHARS) -> list[str]:
    """English prose that has to do with no domain: the topics of Python's own help, the same on every machine
    with the same Python version."""
    from pydoc_data.topics import topics

    texts: list[str] = []
    for name in sorted(topics):
        text = topics[name].strip()[: num_chars - sum(map(len, texts))]
        if len(text) < 2:
            break
        texts.append(text)
    return texts
