"""What an evaluation shows its systems: the pairs of a split, their neighbours and vectors, and the models' prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import DataError
from stages.regression.pair_index import known_neighbours, read_pairs, read_vectors
from stages.regression.pair_prompts import Neighbour, PairRenderer
from stages.regression.pairs import Pair

HELD_OUT = ("validation", "test")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationPairs:
    """One split. pairs, vectors: by part, rows in the same order; neighbours: of the held-out parts, by pair id."""

    split: str
    pairs: dict[str, list[Pair]]
    vectors: dict[str, NDArray[np.float32]]
    neighbours: dict[str, dict[str, list[Neighbour]]]
    prompts: dict[tuple[str, int], list[list[int]]] = field(default_factory=dict)  # part, neighbours shown
    shortened: dict[tuple[str, int], int] = field(default_factory=dict)  # texts of these prompts

    @classmethod
    def read(cls, pairs: Path, index: Path, split: str, num_neighbours: int, limit: int = 0) -> Self:
        """From data/<task>/pairs and data/<task>/pair_index; at most `limit` pairs of each held-out part, if not 0.

        Raises DataError where a part is empty, or the index was built from other pairs.
        """
        parts = {"train": read_pairs(pairs, split, "train")}
        parts |= {part: read_pairs(pairs, split, part, limit) for part in HELD_OUT}
        vectors = {part: read_vectors(index, split, part) for part in parts}
        for part, found in parts.items():
            if not found:
                raise DataError(f"{pairs}/{split}/{part}.jsonl: no pair to evaluate with")
            if len(vectors[part]) < len(found) or (part == "train" and len(vectors[part]) != len(found)):
                raise DataError(f"{index}/{split}: built from other pairs; run `dvc repro build_pair_index`")
        known = {pair.id: pair for pair in parts["train"]}
        neighbours = {
            part: known_neighbours(index, split, part, known, num_neighbours) if num_neighbours else {}
            for part in HELD_OUT
        }
        for part in HELD_OUT:
            if num_neighbours and any(pair.id not in neighbours[part] for pair in parts[part]):
                raise DataError(f"{index}/{split}: built from other pairs; run `dvc repro build_pair_index`")
        return cls(split, parts, {p: vectors[p][: len(found)] for p, found in parts.items()}, neighbours)

    def render(self, renderer: PairRenderer, num_neighbours: Sequence[int]) -> None:
        """Fills `prompts` and `shortened`; 0 neighbours: the prompt without any."""
        for part in HELD_OUT:
            for num in num_neighbours:
                rendered = [
                    renderer.prompt_ids(p.a, p.b, self.neighbours[part][p.id][:num] if num else [])
                    for p in self.pairs[part]
                ]
                self.prompts[part, num] = [one.input_ids for one in rendered]
                self.shortened[part, num] = sum(one.num_shortened for one in rendered)

    def ids(self, part: str) -> list[str]:
        return [pair.id for pair in self.pairs[part]]

    def values(self, part: str) -> Floats:
        return np.array([pair.value for pair in self.pairs[part]])

    def true_values(self, part: str) -> Floats | None:
        """The values without sampling noise; None unless they are known of every pair."""
        known = [pair.true_value for pair in self.pairs[part] if pair.true_value is not None]
        return np.array(known) if len(known) == len(self.pairs[part]) else None

    def neighbour_values(self, part: str) -> list[list[float]]:
        """Of each pair, those of its neighbours, nearest first."""
        return [[near.value for near in self.neighbours[part][pair.id]] for pair in self.pairs[part]]
