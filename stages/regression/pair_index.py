"""The index of known pairs: vectors of every part, and for every pair its nearest ones of the training part.

data/<task>/pair_index/
    <split>/<part>.npy                float32 [N, D], rows in the order of pairs/<split>/<part>.jsonl
    <split>/neighbours/<part>.jsonl   {"id": "c-00--c-02", "neighbours": [{"id": "c-01--c-02", "distance": 1.7}, ...]}
    manifest.json                     embedder and its fingerprint, dimension, top_k, SHA-256 of the files

Neighbours never come from the validation or test part, and are never the pair itself nor its mirror image: no pair
with the same `Pair.key`. Distances are Euclidean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.regression.pair_embedding import Float32
from stages.regression.pair_prompts import Neighbour
from stages.regression.pairs import Pair

MANIFEST = "manifest.json"
DISTANCE_DECIMALS = 6  # finer differences are rounding, and count as ties
SPARE = 8  # candidates beyond those wanted, among which float32 may have mistaken the order
ROUNDING = 1e-5  # of a squared distance in float32, relative to the squared lengths of the vectors

Found = list[tuple[int, float]]  # rows and distances, nearest first


def read_pairs(folder: Path, split: str, part: str, limit: int = 0) -> list[Pair]:
    """The pairs of one part below data/<task>/pairs; only the first `limit` where it is not 0."""
    rows = read_jsonl(folder / split / f"{part}.jsonl")
    return [Pair.from_row(row) for row in (rows[:limit] if limit else rows)]


@dataclass(frozen=True)
class PairIndex:
    """Training pairs with their vectors [N, D], searched exactly (FAISS IndexFlatL2, arXiv:2401.08281)."""

    pairs: list[Pair]
    vectors: Float32

    @classmethod
    def load(cls, folder: Path, split: str, pairs: Sequence[Pair], embedder_fingerprint: str) -> Self:
        """The index of a split's training part below data/<task>/pair_index.

        pairs: of that part. Raises DataError where the index was built from others, or with another embedder than
        the one whose fingerprint is given.
        """
        manifest = read_manifest(folder)
        if manifest["embedder_fingerprint"] != embedder_fingerprint:
            raise DataError(
                f"{folder}: built with another embedder ({manifest['embedder_fingerprint'][:12]}) than the one loaded "
                f"({embedder_fingerprint[:12]}); run `dvc repro build_pair_index`"
            )
        vectors = read_vectors(folder, split, "train")
        indexed = [row["id"] for row in read_jsonl(neighbours_path(folder, split, "train"))]
        known = {pair.id: pair for pair in pairs}
        if len(vectors) != len(indexed) or set(indexed) - set(known):
            raise DataError(f"{folder}/{split}: built from other pairs; run `dvc repro build_pair_index`")
        return cls([known[identifier] for identifier in indexed], vectors)

    @property
    def ids(self) -> list[str]:
        return [pair.id for pair in self.pairs]

    def search(self, vectors: Float32, top_k: int, keys: Sequence[tuple[str, str]]) -> list[Found]:
        """For each vector up to `top_k` rows of pairs that do not have its key; ties go to the smaller id.

        vectors: [Q, D]; keys: `Pair.key` of the Q pairs.
        """
        import faiss

        flat = faiss.IndexFlatL2(self.vectors.shape[1])
        flat.add(np.ascontiguousarray(self.vectors))
        rows_of = _rows_by_key(self.pairs)
        num = min(len(self.pairs), top_k + max(map(len, rows_of.values())) + SPARE)
        _, found = flat.search(np.ascontiguousarray(vectors), num)
        longest = float(np.square(self.vectors).sum(1).max())
        return [
            self._nearest(vector, rows, top_k, rows_of.get(key, []), longest)
            for vector, rows, key in zip(vectors, found, keys, strict=True)
        ]

    def _nearest(
        self, vector: Float32, candidates: npt.NDArray[np.int64], top_k: int, forbidden: Sequence[int], longest: float
    ) -> Found:
        """The nearest in float64: in float32 alike pairs change places with the size of a batch.

        longest: the largest squared length of the index's vectors.
        """
        rows = np.setdiff1d(candidates, forbidden)
        squares = _squares(self.vectors[rows], vector)
        if len(candidates) < len(self.pairs):
            rounding = ROUNDING * (float(vector @ vector) + longest)
            if squares.max() - np.partition(squares, top_k - 1)[top_k - 1] <= rounding:  # others may be as near
                rows = np.setdiff1d(np.arange(len(self.pairs)), forbidden)
                squares = _squares(self.vectors[rows], vector)
        distances = np.sqrt(squares).round(DISTANCE_DECIMALS)
        found = [(int(row), float(distance)) for row, distance in zip(rows, distances, strict=True)]
        return sorted(found, key=lambda item: (item[1], self.pairs[item[0]].id))[:top_k]


def _rows_by_key(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[int]]:
    rows: dict[tuple[str, str], list[int]] = {}
    for row, pair in enumerate(pairs):
        rows.setdefault(pair.key, []).append(row)
    return rows


def _squares(vectors: Float32, vector: Float32) -> npt.NDArray[np.float64]:
    difference = vectors.astype(np.float64) - vector.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.square(difference).sum(1)
    return squares


def neighbours_path(folder: Path, split: str, part: str) -> Path:
    """Where the stored neighbours of a part lie."""
    return folder / split / "neighbours" / f"{part}.jsonl"


def vectors_path(folder: Path, split: str, part: str) -> Path:
    """Where the vectors of a part lie."""
    return folder / split / f"{part}.npy"


def read_vectors(folder: Path, split: str, part: str) -> Float32:
    """float32 [N, D] of a part. Raises DataError where there are none."""
    path = vectors_path(folder, split, part)
    if not path.exists():
        raise DataError(f"{path}: no such vectors; run `dvc repro build_pair_index`")
    vectors: Float32 = np.load(path, allow_pickle=False)
    return vectors


def neighbour(pair: Pair, distance: float) -> Neighbour:
    """A known pair as it stands in a prompt."""
    return Neighbour(pair.a, pair.b, pair.value, distance, pair.id)


def known_neighbours(
    folder: Path, split: str, part: str, pairs_by_id: Mapping[str, Pair], top_k: int
) -> dict[str, list[Neighbour]]:
    """The stored neighbours of every pair of a part, nearest first, at most `top_k`.

    pairs_by_id: the training pairs. Raises DataError where the index holds fewer for a pair than are asked for, or
    pairs that are not there.
    """
    stored = read_manifest(folder)["top_k"]
    if top_k > stored:
        raise DataError(f"{folder}: {top_k} neighbours wanted, {stored} stored; raise build_pair_index.top_k")
    try:
        return {
            row["id"]: [neighbour(pairs_by_id[item["id"]], item["distance"]) for item in row["neighbours"][:top_k]]
            for row in read_jsonl(neighbours_path(folder, split, part))
        }
    except KeyError as error:
        raise DataError(
            f"{folder}/{split}: built from other pairs ({error} is none of them); run `dvc repro build_pair_index`"
        ) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises DataError where there is no index."""
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder}: no index of pairs; run `dvc repro build_pair_index`")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest
