"""Full-text search and rank fusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.records import IndexRecord
from stages.retrieval.fulltext import FulltextStore, match_expression
from stages.retrieval.fusion import reciprocal_rank_scores
from stages.retrieval.index import Index

TEXTS = [
    ("qa-1", "qa", "Who founded the mill?", "Lona Tir did."),
    ("book-1", "book", "What is Bako?", "Bako is a mill. Its founder was Lona Tir."),
    ("book-2", "book", "Что делать с тревогой?", "Тревога ёлка проходит."),
    ("book-3", "book", "Where is the café?", "By the river."),
]


@pytest.fixture(scope="module")
def store() -> FulltextStore:
    records = [IndexRecord(i, kind, "d", "s", 0, [question], text) for i, kind, question, text in TEXTS]
    vectors = np.eye(len(TEXTS), dtype=np.float32)
    return FulltextStore(Index(records, vectors, np.arange(len(TEXTS), dtype=np.int32), vectors[:0], {}))


@pytest.mark.parametrize(
    ("query", "kinds", "expected"),
    [
        ("mill founder", None, [1, 0]),
        ("mill founder", ["qa"], [0]),
        ("mill founder", [], []),
        ("ТРЕВОГОЙ", None, [2]),
        ("елка", None, [2]),  # diacritics and case do not count
        ("CAFE", None, [3]),
        ("cafe\u0301", None, [3]),  # decomposed
        ("zebra", None, []),
        ("", None, []),
        ("?!", None, []),
    ],
)
def test_ranking(store: FulltextStore, query: str, kinds: list[str] | None, expected: list[int]) -> None:
    assert store.ranked(query, kinds) == expected


@given(st.text())
def test_any_query_is_harmless(store: FulltextStore, query: str) -> None:
    assert set(store.ranked(query, None)) <= set(range(len(TEXTS)))


@pytest.mark.parametrize("query", ['"', "a AND", "kind:qa", "NEAR(a b)", "mill*", "'; DROP TABLE records", "_", "^a"])
def test_syntax_is_taken_as_words(store: FulltextStore, query: str) -> None:
    store.ranked(query, None)
    assert store.ranked("mill", None) == [0, 1]


def test_expression_quotes_each_word_once() -> None:
    assert match_expression('The "mill" OR the NOT') == '"the" OR "mill" OR "or" OR "not"'


def test_reciprocal_ranks() -> None:
    scores = reciprocal_rank_scores([["a", "b", "c"], ["c", "a"]], k=60)
    assert scores == {"a": 1 / 61 + 1 / 62, "b": 1 / 62, "c": 1 / 63 + 1 / 61}
    assert sorted(scores, key=lambda item: -scores[item]) == ["a", "c", "b"]
    assert reciprocal_rank_scores([[], []]) == {}
