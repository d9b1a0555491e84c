"""The few numbers of a report under names that stay."""

from __future__ import annotations

from typing import Any

from stages.evaluation.headline import domain_headline, regression_headline


def number(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": 0.0, "high": 1.0, "n": 9}  # type: ignore[dict-item]


def test_a_domain_s_headline_holds_what_was_measured() -> None:
    metrics = {
        "answers": {"tuned_docs": {"exact_match": number(0.97), "loss": number(0.1)}},
        "grounding": {"tuned": {"none": {"exact_match": number(0.0)}, "gold": {"exact_match": number(None)}}},
        "perplexity": {"book": {"book_heldout": number(42.5)}},
    }
    assert domain_headline(metrics) == {
        "exact_match": {"tuned_docs": 0.97},
        "grounding": {"none": 0.0},
        "perplexity": {"book": 42.5},
    }


def test_a_task_s_headline_names_the_best_by_its_rank_not_by_its_name() -> None:
    def system(r2: float) -> dict[str, Any]:
        return {"by_pair": {"r2": number(r2), "mae": number(0.05)}}

    systems = {"hybrid_expected": system(0.98), "nearest": system(0.5), "ce_greedy": system(0.7)}
    metrics = {"best": {"by_pair": "hybrid_expected"}, "regression": {"contracts": systems}}
    assert regression_headline(metrics) == {
        "by_pair.r2": {"best": 0.98, "nearest": 0.5},
        "by_pair.mae": {"best": 0.05},
    }
