"""What was measured of one configuration: every question (section, pair) for every seed that was trained.

Shapes: S seeds, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from stages.core.errors import DataError


@dataclass(frozen=True)
class Scores:
    """groups: [N], what an item must not be told apart from: its source document, or a pair's two contracts.

    columns: [S, N] each: of questions and sections `nll` (nats, summed over the reference's tokens), `exact_match`
    and `token_f1`; of pairs `predicted` and `crps`. weights: [N], tokens of the reference. truth: [N], of pairs.
    """

    seeds: list[int]
    ids: list[str]
    groups: list[list[str]]
    columns: dict[str, list[list[float]]]
    weights: list[float]
    truth: list[float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several trainings of one configuration as one. Raises DataError where they were asked different questions."""
        first = parts[0]
        if any(part.ids != first.ids for part in parts):
            raise DataError("jobs of one sweep were measured on different questions; run the sweep again")
        columns = {name: [row for part in parts for row in part.columns[name]] for name in first.columns}
        seeds = [seed for part in parts for seed in part.seeds]
        return cls(seeds, first.ids, first.groups, columns, first.weights, first.truth)

    def of_seeds(self, seeds: Sequence[int]) -> Self:
        """The same of these seeds only, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        columns = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        return type(self)(list(seeds), self.ids, self.groups, columns, self.weights, self.truth)
