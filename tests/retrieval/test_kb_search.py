"""Search over the knowledge base by words, by vectors and by both, with an encoder that counts letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.core.schema import Embedder
from stages.knowledge.kb_fulltext import Filter
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk
from stages.retrieval import kb_vectors
from stages.retrieval.fusion import reciprocal_rank_scores
from stages.retrieval.kb_search import KnowledgeSearch
from stages.retrieval.kb_vectors import cached_vectors

EMBEDDER = Embedder(name="letters", path="x", dimension=26, max_tokens=99)
TEXTS = ["a mill by the river", "lilim", "corn", "a stone, a wheel"]


class LetterEncoder:
    fingerprint = "letters"

    def __init__(self) -> None:
        self.passages: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[text.count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32) + 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        self.passages.extend(texts)
        return self.encode_queries(texts)

    def num_truncated(self, texts: Sequence[str]) -> int:
        return 0


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> LetterEncoder:
    encoder = LetterEncoder()
    monkeypatch.setattr("stages.retrieval.embedding.load_embedder", lambda embedder: encoder)
    return encoder


@pytest.fixture
def search(tmp_path: Path, encoder: LetterEncoder) -> Iterator[KnowledgeSearch]:
    kinds = ["book", "article", "book", "article"]
    chunks = [Chunk(f"c-{n}", kinds[n], f"d{n}", "", 1, text) for n, text in enumerate(TEXTS)]
    write_knowledge(tmp_path / "k.sqlite", [], chunks)
    with KnowledgeSearch(tmp_path / "k.sqlite", EMBEDDER, tmp_path) as search:
        yield search


def test_each_mode_ranks_in_its_way(search: KnowledgeSearch) -> None:
    assert search.places("mills", 9, "fulltext") == [1]
    assert search.places("mill", 2, "vector") == [2, 1]
    assert search.places("mill", 9, "fused")[:2] == [1, 2]
    hits = search.find("mills", 1, "fused")
    assert (hits[0].chunk.id, hits[0].snippet.marks) == ("c-0", [(2, 6)])


@pytest.mark.parametrize("mode", ["fulltext", "vector", "fused"])
def test_filter(search: KnowledgeSearch, mode: str) -> None:
    assert search.places("mill corn", 9, mode, Filter(kind="book")) in ([3, 1], [1, 3])
    assert search.places("corn", 9, mode, Filter(document="d2")) == [3]
    assert search.places("corn", 9, mode, Filter(document="zebra")) == []


@pytest.mark.parametrize("query", ["", "   ", "?!", '"', "a AND (b", "\x00", "ж" * 5000])
@pytest.mark.parametrize("mode", ["fulltext", "vector", "fused"])
def test_any_query_is_safe(search: KnowledgeSearch, query: str, mode: str) -> None:
    assert len(search.find(query, 3, mode)) <= 3


def test_an_unknown_mode_is_refused(search: KnowledgeSearch) -> None:
    with pytest.raises(ValueError, match="mode: 'all' is not one of fulltext, vector, fused"):
        search.places("mill", 1, "all")


def test_words_alone_load_no_encoder(search: KnowledgeSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.retrieval.embedding.load_embedder", lambda embedder: pytest.fail("loaded"))
    assert search.find("corn", 1)[0].chunk.id == "c-2"


def test_damage_that_shows_late_is_said(tmp_path: Path) -> None:
    chunks = [Chunk(f"c-{n}", "book", "d", "", n, f"mill {n} " * 500) for n in range(50)]
    write_knowledge(tmp_path / "k.sqlite", [], chunks)
    data = (tmp_path / "k.sqlite").read_bytes()
    (tmp_path / "k.sqlite").write_bytes(data[: 4096 * 9] + b"\xff" * (len(data) - 4096 * 9))
    with pytest.raises(DataError, match="damaged"), KnowledgeSearch(tmp_path / "k.sqlite", None, tmp_path) as search:
        search.find("mill", 50)


def test_only_new_texts_are_embedded(tmp_path: Path, encoder: LetterEncoder) -> None:
    first = cached_vectors(lambda: encoder, tmp_path, "letters", ["mill", "corn", "mill"])
    assert sorted(encoder.passages) == ["corn", "mill"]
    again = cached_vectors(lambda: encoder, tmp_path, "letters", ["wheel", "corn"])
    assert encoder.passages[2:] == ["wheel"]
    np.testing.assert_array_equal(again[1], first[1])
    np.testing.assert_array_equal(first[0], first[2])
    assert (first.dtype, first.shape) == (np.float32, (3, 26))
    cached_vectors(lambda: pytest.fail("loaded"), tmp_path, "letters", ["corn"])
    assert cached_vectors(lambda: pytest.fail("loaded"), tmp_path, "letters", []).shape == (0, 0)
    cached_vectors(lambda: encoder, tmp_path, "another", ["corn"])
    assert encoder.passages[3:] == ["corn"]


def test_what_was_embedded_before_a_kill_stays(
    tmp_path: Path, encoder: LetterEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kb_vectors, "BLOCK", 2)
    encode = encoder.encode_queries

    def failing(texts: Sequence[str]) -> np.ndarray:
        if len(encoder.passages) > 2:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(encoder, "encode_queries", failing)
    with pytest.raises(KeyboardInterrupt):
        cached_vectors(lambda: encoder, tmp_path, "letters", ["aaa", "bb", "c"])
    monkeypatch.setattr(encoder, "encode_queries", encode)
    encoder.passages.clear()
    cached_vectors(lambda: encoder, tmp_path, "letters", ["aaa", "bb", "c"])
    assert encoder.passages == ["c"]


def test_weights_of_rankings() -> None:
    scores = reciprocal_rank_scores([["a", "b"], ["b"]], k=1, weights=[1.0, 0.5])
    assert scores == {"a": 1 / 2, "b": 1 / 3 + 0.5 / 2}


@pytest.mark.slow
def test_xquad_is_found_better_than_by_plain_bm25(shared_data: Path, tmp_path: Path) -> None:
    """Plain BM25 over the same paragraphs: recall@5 .962, MRR .897."""
    from stages.core.jsonl import read_jsonl

    documents = read_jsonl(shared_data / "qa/xquad.de.docs.jsonl")
    chunks = [Chunk(row["doc_id"], "article", row["title"], "", 1, row["text"]) for row in documents]
    write_knowledge(tmp_path / "k.sqlite", [], chunks)
    ids = [row["doc_id"] for row in documents]
    questions = read_jsonl(shared_data / "qa/xquad.de.questions.jsonl")
    ranks = []
    with KnowledgeSearch(tmp_path / "k.sqlite", None, tmp_path) as search:
        for row in questions:
            found = [ids[place - 1] for place in search.places(row["question"], len(ids), "fulltext")]
            ranks.append(found.index(row["doc_id"]) + 1 if row["doc_id"] in found else len(ids) + 1)
    assert sum(rank <= 5 for rank in ranks) / len(ranks) == pytest.approx(0.973, abs=5e-4)
    assert sum(1 / rank for rank in ranks) / len(ranks) > 0.92
