"""Which pairs of many contracts are looked at: all, or the first by a hash, without ever listing all of them.

A pair's place depends on the seed and its two keys only: more contracts add pairs between, they reorder none.
C: contracts; the C(C-1)/2 pairs are hashed row by row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

PAIRS_AT_ONCE = 1_000_000  # held in memory, about
HASHES = 2**64


def pairs_by_hash(keys: Sequence[str], seed: int) -> Iterator[tuple[int, int]]:
    """Every unordered pair (i, j) of distinct keys once, in hash order; which comes first in it is by hash too."""
    hashes = np.array([_hash(seed, key) for key in keys], np.uint64)
    num_pairs = len(keys) * (len(keys) - 1) // 2
    num_bands = num_pairs // PAIRS_AT_ONCE + 1
    bounds = [HASHES * band // num_bands for band in range(num_bands)] + [HASHES]
    for low, high in pairwise(bounds):
        yield from _band(hashes, low, high - 1)


def _hash(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")


def _band(hashes: npt.NDArray[np.uint64], low: int, last: int) -> Iterator[tuple[int, int]]:
    """The pairs whose hash lies in [low, last], sorted by it."""
    found: list[npt.NDArray[np.uint64]] = []
    for i in range(len(hashes) - 1):
        row = _mix(hashes[i + 1 :] + hashes[i])  # a sum: the same from either side
        inside = np.flatnonzero((row >= np.uint64(low)) & (row <= np.uint64(last)))
        found.append(np.stack([row[inside], np.full(len(inside), i, np.uint64), (inside + i + 1).astype(np.uint64)]))
    if not found:
        return
    mixed, i_of, j_of = np.concatenate(found, axis=1)
    for place in np.lexsort((j_of, i_of, mixed)):
        i, j = int(i_of[place]), int(j_of[place])
        swap = bool(int(mixed[place]) & 1) == bool(hashes[i] < hashes[j])
        yield (j, i) if swap else (i, j)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): neighbouring inputs, unrelated outputs."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
