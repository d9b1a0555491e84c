"""The few numbers that stand for a report: reports/<name>/headline.json, for `dvc metrics diff` and `dvc exp show`.

    {"exact_match": {"base": 0.0, "base_docs": 0.0, "tuned": 0.0, "tuned_docs": 0.97}, "perplexity": {...}, ...}

Values alone, under names that stay; metrics.json beside it has all of them with n and intervals, which
`groundtune review` compares. What was not measured is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

DOMAIN = {
    "exact_match": {name: f"answers.{name}.exact_match" for name in ("base", "base_docs", "tuned", "tuned_docs")},
    "grounding": {
        "gold": "grounding.tuned.gold.exact_match",
        "gold_distractor": "grounding.tuned.gold_distractor.exact_match",
        "none": "grounding.tuned.none.exact_match",
    },
    "recall_at_2": {name: f"retrieval.{name}.recall_at_2" for name in ("questions", "text")},
    "perplexity": {name: f"perplexity.{name}.book_heldout" for name in ("base", "book")},
}
SYSTEMS = ("constant", "nearest", "ridge", "base_expected", "ceiling")


def domain_headline(metrics: Json) -> dict[str, dict[str, float]]:
    """Of a domain's metrics.json."""
    groups = {group: dict(_values(metrics, keys)) for group, keys in DOMAIN.items()}
    return {group: values for group, values in groups.items() if values}


def regression_headline(metrics: Json) -> dict[str, dict[str, float]]:
    """Of a regression task's metrics.json: R2 and MAE of the best system, and R2 of what is simpler, for each split."""
    (systems,) = metrics["regression"].values()
    headline: dict[str, dict[str, float]] = {}
    for split, best in metrics["best"].items():
        r2 = {"best": f"{best}.{split}.r2", **{name: f"{name}.{split}.r2" for name in SYSTEMS}}
        headline[f"{split}.r2"] = dict(_values(systems, r2))
        headline[f"{split}.mae"] = dict(_values(systems, {"best": f"{best}.{split}.mae"}))
    return headline


def _values(metrics: Json, keys: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, key in keys.items():
        found: Any = metrics
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and found.get("value") is not None:
            yield name, found["value"]
