"""Rankings by cosine, and retrieval metrics over them with binary relevance.

A question's relevant records are its evidence, any one of which holds the answer (a fact is told in several
places). So recall_at_k is 1 where one of them is among the first k, as in open-domain question answering
(Karpukhin et al. 2020, arXiv:2004.04906, "top-k accuracy"); nDCG asks for all of them (Jarvelin & Kekalainen 2002).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, np.dtype[np.float32]]

METRICS = ("recall_at_1", "recall_at_2", "recall_at_5", "mrr", "ndcg_at_10")
DEPTH = 100  # ranks that are looked at; a first relevant record below it counts as never found


def scores(ranking: Sequence[str], relevant: Collection[str]) -> dict[str, float]:
    """METRICS of one ranking of record ids, best first; `relevant` must not be empty."""
    if not relevant:
        raise ValueError("a question without relevant records cannot be scored")
    hits = [rank for rank, record in enumerate(ranking, start=1) if record in relevant]
    first = hits[0] if hits else math.inf
    gain = sum(1 / math.log2(rank + 1) for rank in hits if rank <= 10)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), 10) + 1))
    return {
        "recall_at_1": float(first <= 1),
        "recall_at_2": float(first <= 2),
        "recall_at_5": float(first <= 5),
        "mrr": 1 / first,
        "ndcg_at_10": gain / ideal,
    }


def rank(queries: Vectors, vectors: Vectors, owners: Sequence[int], depth: int = DEPTH) -> list[list[int]]:
    """For each query [Q, D] the owners of `vectors` [V, D], nearest first, each by its best vector.

    Rows are L2-normalised, so the inner product is the cosine. Exact; ties go to the smaller owner number.
    """
    import numpy as np

    numbers, index = np.unique(np.asarray(owners), return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(numbers)))
    rankings = []
    for start in range(0, len(queries), 256):
        similarity = queries[start : start + 256] @ vectors[order].T
        best = np.maximum.reduceat(similarity, starts, axis=1)  # [Q, owners]
        nearest = np.argsort(-best, axis=1, kind="stable")[:, :depth]
        rankings.extend([[int(numbers[n]) for n in row] for row in nearest])
    return rankings
