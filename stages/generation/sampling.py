"""The next token of rows that are written together: the likeliest, or one drawn by the row's own random numbers.

Shapes: B rows, V words in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Draws:
    """How a row's tokens are drawn (temperature 0: they are not), and its random numbers, which no other row moves."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self.temperature, self.top_p, self._seed = temperature, top_p, seed
        self._generator: Any = None

    def uniform(self) -> float:
        """The next one in [0, 1)."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self._seed)
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def choose(logits: Sequence[Any], rows: Sequence[Draws]) -> list[int]:
    """The next token of each row: the likeliest, or drawn where it has a temperature.

    logits: [B, V] of the rows in their order, in one part or several.
    """
    import torch

    scores = torch.cat(list(logits))
    tokens: list[int] = scores.argmax(-1).tolist()
    if drawing := [n for n, row in enumerate(rows) if row.temperature > 0]:
        drawn = _draw(scores[drawing], [rows[n] for n in drawing])
        for n, token in zip(drawing, drawn, strict=True):
            tokens[n] = token
    return tokens


def _draw(scores: Any, rows: Sequence[Draws]) -> list[int]:
    """By the inverse of the cumulative distribution, in the vocabulary's order: rounding moves its steps by as little,
    where in the order of probabilities it would swap words."""
    import torch

    temperatures, top_ps, uniform = (
        torch.tensor(column, dtype=torch.float64, device=scores.device)[:, None]
        for column in (
            [row.temperature for row in rows],
            [row.top_p for row in rows],
            [row.uniform() for row in rows],
        )
    )
    probabilities = _nucleus((scores.double() / temperatures).softmax(-1), top_ps)
    cumulative = probabilities.cumsum(-1)
    tokens: list[int] = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0].tolist()
    return tokens


def _nucleus(probabilities: Any, top_ps: Any) -> Any:
    """0 for what is not among the likeliest words that make up top_p (Holtzman et al., 2020); the likeliest stays."""
    ranked, order = probabilities.sort(-1, descending=True)
    outside = ranked.cumsum(-1) - ranked >= top_ps
    outside[:, 0] = False
    return probabilities.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
