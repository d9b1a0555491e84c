"""Search over the knowledge base: by words (fulltext), by meaning (vector), or both rankings fused.

with KnowledgeSearch(Path("data/demo/knowledge.sqlite"), config.embedder, cache) as search:
    hits = search.find("who ground the corn?", top_k=5, mode="fused")
    hits[0].chunk.id, hits[0].snippet.text
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stages.core.schema import Embedder, one_of
from stages.knowledge.kb_fulltext import ALL, Filter, Snippet, languages_of, ranked, snippet
from stages.knowledge.knowledge_base import open_knowledge, to_chunk
from stages.knowledge.records import Chunk
from stages.retrieval.fusion import reciprocal_rank_scores

if TYPE_CHECKING:
    from stages.retrieval.embedding import Encoder, Float32

MODES = ("fulltext", "vector", "fused")
FUSION_DEPTH = 100  # how far down each ranking counts
# The first ranks decide, and words before meaning: with k = 60 and equal weights an embedder that does not know the
# language (XQuAD in German, MiniLM) takes recall@5 from .973 to .919; so it helps, .981, at a cost where it does.
FUSION_K = 1
FUSION_WEIGHTS = (1.0, 0.5)  # full text, vectors


@dataclass(frozen=True)
class KnowledgeHit:
    """A chunk that was found, best first; the snippet is where the query's words stand in it."""

    chunk: Chunk
    snippet: Snippet


class KnowledgeSearch:
    """Searches one knowledge base. embedder: what `vector` and `fused` need. cache: where vectors may be kept."""

    def __init__(self, path: Path, embedder: Embedder | None, cache: Path) -> None:
        self._embedder, self._cache = embedder, cache
        self._open = ExitStack()
        self._connection: sqlite3.Connection = self._open.enter_context(open_knowledge(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)  # which says of a damaged file what it is

    def find(self, query: str, top_k: int, mode: str = "fulltext", only: Filter = ALL) -> list[KnowledgeHit]:
        """At most `top_k` hits. Any text is a query; one without a word finds nothing by words."""
        languages = languages_of(self._connection)
        chunks = (self._chunk(place) for place in self.places(query, top_k, mode, only))
        return [KnowledgeHit(chunk, snippet(chunk.text, query, languages)) for chunk in chunks]

    def places(self, query: str, top_k: int, mode: str, only: Filter = ALL) -> list[int]:
        """As `find`: the hits' places in the order of chunks, from 1."""
        one_of(mode, MODES, "mode")
        if mode == "fulltext":
            return ranked(self._connection, query, top_k, only)
        if mode == "vector":
            return self._nearest(query, top_k, only)
        depth = max(top_k, FUSION_DEPTH)
        rankings = [ranked(self._connection, query, depth, only), self._nearest(query, depth, only)]
        scores = reciprocal_rank_scores(rankings, FUSION_K, FUSION_WEIGHTS)
        return sorted(scores, key=lambda place: (-scores[place], place))[:top_k]

    def _nearest(self, query: str, limit: int, only: Filter) -> list[int]:
        import numpy as np

        if not query.strip():
            return []
        places = self._places(only)
        vectors = self._vectors[np.array(places, dtype=np.int64) - 1]
        distances = np.round(1 - vectors @ self._encoder.encode_queries([query])[0], 6)
        order = np.argsort(distances, kind="stable")[:limit]  # of equally near ones the first
        return [places[number] for number in order]

    def _places(self, only: Filter) -> list[int]:
        rows = self._connection.execute(
            "SELECT place FROM chunks WHERE (:kind = '' OR kind = :kind) "
            "AND substr(document, 1, length(:document)) = :document ORDER BY place",
            {"kind": only.kind, "document": only.document},
        )
        return [row["place"] for row in rows]

    def _chunk(self, place: int) -> Chunk:
        return to_chunk(self._connection.execute("SELECT * FROM chunks WHERE place = ?", (place,)).fetchone())

    @cached_property
    def _encoder(self) -> Encoder:
        from stages.retrieval.embedding import load_embedder

        assert self._embedder is not None, f"{MODES[1]} and {MODES[2]} need an embedder"
        return load_embedder(self._embedder)

    @cached_property
    def _vectors(self) -> Float32:
        """float32[number of chunks, D], in the order of places, which count from 1."""
        from stages.retrieval.kb_vectors import cached_vectors

        texts = [row["text"] for row in self._connection.execute("SELECT text FROM chunks ORDER BY place")]
        return cached_vectors(lambda: self._encoder, self._cache, self._encoder.fingerprint, texts)
