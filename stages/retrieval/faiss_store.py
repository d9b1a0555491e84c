"""Exact nearest neighbours in memory: a flat FAISS index (arXiv:2401.08281)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.retrieval.embedding import Float32
from stages.retrieval.index import Index


class FaissStore:
    """Built anew from the index each time: adding 50,000 vectors takes less time than reading them."""

    def __init__(self, index: Index, cache: Path) -> None:
        import faiss

        self._kinds = np.array([index.records[number].kind for number in index.entries])
        self._flat = faiss.IndexFlatIP(index.vectors.shape[1])
        self._flat.add(np.ascontiguousarray(index.vectors))

    def nearest(self, vectors: Float32, num: int, kinds: Collection[str] | None) -> list[npt.NDArray[np.int64]]:
        """For each of the Q queries up to `num` entries, nearest first, of records of these kinds (None: all)."""
        import faiss

        parameters = None
        if kinds is not None:
            allowed = np.flatnonzero(np.isin(self._kinds, list(kinds))).astype(np.int64)
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))  # type: ignore[call-arg]  # its stubs lack it
        _, entries = self._flat.search(np.ascontiguousarray(vectors), num, params=parameters)
        return [row[row >= 0] for row in entries]
