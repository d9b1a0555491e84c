"""Several rankings into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain, repeat
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


def reciprocal_rank_scores(
    rankings: Iterable[Sequence[Item]], k: int = 60, weights: Iterable[float] = ()
) -> dict[Item, float]:
    """Item -> sum of weight / (k + rank) over the rankings that hold it, ranks from 1; weights: 1 each where none.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009 (k = 60).
    """
    scores: dict[Item, float] = defaultdict(float)
    for ranking, weight in zip(rankings, chain(weights, repeat(1.0)), strict=False):
        for rank, item in enumerate(ranking, start=1):
            scores[item] += weight / (k + rank)
    return dict(scores)
