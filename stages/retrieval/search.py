"""Search: question vectors in, records out, the same over every store.

A record is as near as the nearest of its vectors. Stores only propose entries; distances are computed here from
the index, so that results (and ties, which go by record id) do not depend on the store. It is asked for more until
nothing that it has not yet named could still be among the best, so folding and exclusion lose nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.core.schema import Retrieval
from stages.knowledge.records import IndexRecord
from stages.retrieval.chroma_server import ChromaServerStore
from stages.retrieval.chroma_store import ChromaStore
from stages.retrieval.embedding import Float32
from stages.retrieval.faiss_store import FaissStore
from stages.retrieval.fulltext import FulltextStore
from stages.retrieval.fusion import reciprocal_rank_scores
from stages.retrieval.index import Index

Entries = npt.NDArray[np.int64]
Ranking = list[tuple[float, int]]  # (distance, record number), nearest first

FIRST_FETCH = 8  # entries per wanted record in the first round: a record has a few questions
FUSION_DEPTH = 100  # how far down each ranking counts when rankings are fused
DECIMALS = 6  # of a distance: what float32 unit vectors carry
TIE = 2e-6  # a store's own rounding: entries this close may come in either order


class VectorStore(Protocol):
    """Proposes entries; may be approximate."""

    def nearest(self, vectors: Float32, num: int, kinds: Collection[str] | None) -> list[Entries]:
        """For each of the Q queries up to `num` entries, nearest first, of records of these kinds (None: all)."""


STORES: dict[str, Callable[[Index, Retrieval, Path], VectorStore]] = {
    "chroma": lambda index, _, cache: ChromaStore(index, cache),
    "chroma_server": lambda index, retrieval, _: ChromaServerStore(index, retrieval.server),
    "faiss": lambda index, _, cache: FaissStore(index, cache),
}


@dataclass(frozen=True)
class Hit:
    """distance: cosine distance, 0 to 2. score: higher is better; 1 - distance, or the fused score with full text."""

    record: IndexRecord
    distance: float
    score: float


class Searcher:
    """Searches one index. `cache` is where stores may keep files that can be deleted at any time."""

    def __init__(self, index: Index, retrieval: Retrieval, cache: Path) -> None:
        self.index = index
        self._fusion_k = retrieval.fusion_k
        self._store = STORES[retrieval.store](index, retrieval, cache)
        self._fulltext = FulltextStore(index) if retrieval.fulltext else None
        self._kinds = np.array([index.records[number].kind for number in index.entries])
        self._sections: dict[tuple[str, str, str], dict[int, IndexRecord]] = defaultdict(dict)
        for record in index.records:
            self._sections[record.kind, record.document, record.section][record.number] = record

    def search(
        self,
        vectors: Float32,
        texts: Sequence[str],
        top_k: int,
        kinds: Collection[str] | None = None,
        max_distance: float | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> list[list[Hit]]:
        """For each query the `top_k` best records, best first; fewer where no more qualify.

        vectors: float32[Q, D] of length 1; texts: the Q queries (read by full-text search only). kinds: None for
        all. max_distance holds for every hit, also for one found by its words. exclude: record ids, per query.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        self._check(vectors, texts, top_k, exclude)
        excluded = [self._numbers(ids) for ids in exclude] if exclude is not None else [set() for _ in texts]
        limit = np.inf if max_distance is None else max_distance
        depth = max(top_k, FUSION_DEPTH) if self._fulltext else top_k
        rankings = self._nearest_records(vectors, depth, kinds, limit, excluded)
        if self._fulltext is None:
            return [[self._hit(d, n, 1 - d) for d, n in ranking] for ranking in rankings]
        queries = zip(vectors, texts, rankings, excluded, strict=True)
        return [self._fused(*query, kinds, limit, depth)[:top_k] for query in queries]

    def siblings(self, record: IndexRecord, before: int, after: int) -> list[IndexRecord]:
        """The record with its neighbours in the document, in order: numbers N - before to N + after, same section."""
        section = self._sections[record.kind, record.document, record.section]
        numbers = range(record.number - before, record.number + after + 1)
        return [record if number == record.number else section[number] for number in numbers if number in section]

    def _nearest_records(
        self, vectors: Float32, depth: int, kinds: Collection[str] | None, limit: float, excluded: list[set[int]]
    ) -> list[Ranking]:
        allowed = np.arange(len(self._kinds)) if kinds is None else np.flatnonzero(np.isin(self._kinds, list(kinds)))
        rankings: list[Ranking] = [[] for _ in vectors]
        pending, num = list(range(len(vectors))), depth * FIRST_FETCH
        while pending and len(allowed):
            everything = num >= len(allowed)
            proposed = [allowed] * len(pending) if everything else self._store.nearest(vectors[pending], num, kinds)
            unfinished = []
            for query, entries in zip(pending, proposed, strict=True):
                ranking, furthest = self._fold(vectors[query], entries, limit, excluded[query])
                rankings[query] = ranking[:depth]
                # Whatever has not been named yet is at least as far as the furthest that has been.
                needed = min(limit, ranking[depth - 1][0] if len(ranking) >= depth else np.inf)
                if not everything and furthest <= needed + TIE:
                    unfinished.append(query)
            pending, num = unfinished, num * 4
        return rankings

    def _fold(self, query: Float32, entries: Entries, limit: float, excluded: set[int]) -> tuple[Ranking, float]:
        """Entries to records, nearest first, and the distance of the furthest entry."""
        distances = self._distances(query, entries)
        best: dict[int, float] = {}
        for number, distance in zip(self.index.entries[entries].tolist(), distances.tolist(), strict=True):
            if distance <= limit and number not in excluded:
                best[number] = min(distance, best.get(number, np.inf))
        ranking = sorted(((d, n) for n, d in best.items()), key=lambda pair: (pair[0], self.index.records[pair[1]].id))
        return ranking, float(distances.max(initial=0))

    def _fused(
        self,
        query: Float32,
        text: str,
        ranking: Ranking,
        excluded: set[int],
        kinds: Collection[str] | None,
        limit: float,
        depth: int,
    ) -> list[Hit]:
        assert self._fulltext is not None
        distances = {number: distance for distance, number in ranking}
        by_words: list[int] = []
        for number in self._fulltext.ranked(text, kinds):
            if len(by_words) == depth:
                break
            if number not in distances:
                distances[number] = float(self._distances(query, self.index.entries_of(number)).min())
            if number not in excluded and distances[number] <= limit:
                by_words.append(number)
        scores = reciprocal_rank_scores([[number for _, number in ranking], by_words], self._fusion_k)
        hits = [self._hit(distances[number], number, score) for number, score in scores.items()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.record.id))

    def _distances(self, query: Float32, entries: Entries | slice) -> npt.NDArray[np.float64]:
        products = self.index.vectors[entries].astype(np.float64) @ query.astype(np.float64)
        return np.maximum(np.round(1 - products, DECIMALS), 0.0)

    def _hit(self, distance: float, number: int, score: float) -> Hit:
        return Hit(self.index.records[number], distance, score)

    def _numbers(self, record_ids: Collection[str]) -> set[int]:
        """Ids that are not in the index exclude nothing."""
        return {self.index.number(i) for i in record_ids if i in self.index}

    def _check(
        self, vectors: Float32, texts: Sequence[str], top_k: int, exclude: Sequence[Collection[str]] | None
    ) -> None:
        dimension = self.index.vectors.shape[1]
        if vectors.shape != (len(texts), dimension):
            raise ValueError(f"vectors: expected shape {(len(texts), dimension)}, got {vectors.shape}")
        if exclude is not None and len(exclude) != len(texts):
            raise ValueError(f"exclude: {len(exclude)} sets for {len(texts)} queries")
        if top_k < 1:
            raise ValueError("top_k must be at least 1")
