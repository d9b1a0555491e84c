from __future__ import annotations

import math

import numpy as np
import pytest

from stages.evaluation.rankings import rank, scores


def test_scores_of_a_hit_at_rank_two() -> None:
    found = scores(["x", "a", "y"], {"a"})
    assert (found["recall_at_1"], found["recall_at_2"], found["recall_at_5"]) == (0.0, 1.0, 1.0)
    assert found["mrr"] == 0.5
    assert found["ndcg_at_10"] == pytest.approx(1 / math.log2(3))


def test_any_telling_of_the_answer_counts_as_found_but_ndcg_asks_for_all() -> None:
    found = scores(["a", *"vwxyz"], {"a", "b"})
    assert found["recall_at_1"] == 1.0
    assert found["ndcg_at_10"] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert scores(["a", "b"], {"a", "b"})["ndcg_at_10"] == 1.0


def test_nothing_found_scores_nothing() -> None:
    assert set(scores(["x"], {"a"}).values()) == {0.0}
    assert set(scores([], {"a"}).values()) == {0.0}


def test_ndcg_stops_at_ten() -> None:
    ranking = [str(n) for n in range(12)]
    assert scores(ranking, {"10"})["ndcg_at_10"] == 0.0
    assert scores(ranking, {"10"})["mrr"] == 1 / 11
    assert scores(ranking, set(ranking))["ndcg_at_10"] == pytest.approx(1.0)


def test_a_question_without_relevant_records_is_an_error() -> None:
    with pytest.raises(ValueError, match="without relevant"):
        scores(["a"], set())


def test_a_record_stands_where_its_best_vector_stands() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [0, -1]], dtype=np.float32)
    queries = np.array([[0, 1], [1, 0]], dtype=np.float32)
    assert rank(queries, vectors, [7, 7, 5, 9]) == [[7, 5, 9], [7, 5, 9]]
    assert rank(queries, vectors, [7, 5, 5, 9]) == [[5, 7, 9], [7, 5, 9]]
    assert rank(queries, vectors, [3, 7, 3, 7], depth=1) == [[7], [3]]


def test_ties_go_to_the_smaller_number() -> None:
    vectors = np.ones((3, 1), dtype=np.float32)
    assert rank(vectors[:1], vectors, [9, 4, 6]) == [[4, 6, 9]]


def test_many_queries_agree_with_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(90, 8)).astype(np.float32), rng.normal(size=(300, 8)).astype(np.float32)
    owners = rng.integers(0, 30, 90)
    for query, found in zip(queries, rank(queries, vectors, list(owners), depth=30), strict=True):
        best = {int(owner): max((vectors @ query)[owners == owner]) for owner in owners}
        assert found == sorted(best, key=lambda owner: (-best[owner], owner))
