"""`groundtune report`: where the reports of the configured domain and regression task are, and their headline numbers.

Reads reports/<name>/metrics.json of both, in which each number is {"value", "low", "high", "n"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stages.core.errors import DataError
from stages.core.workspace import ROOT

Row = tuple[str, str, str, str]  # label, value, interval, n

MODELS = {
    "base": "base",
    "base_docs": "base + documents",
    "tuned": "tuned",
    "tuned_docs": "tuned + documents",
}
HEADLINES = {
    "tuned, right document given: exact match": "grounding.tuned.gold.exact_match",
    "tuned, a wrong one beside it: exact match": "grounding.tuned.gold_distractor.exact_match",
    "tuned, no document: exact match": "grounding.tuned.none.exact_match",
    "retrieval by questions: recall at 2": "retrieval.questions.recall_at_2",
    "retrieval by text: recall at 2": "retrieval.text.recall_at_2",
    "held-out book, base: perplexity": "perplexity.base.book_heldout",
    "held-out book, book model: perplexity": "perplexity.book.book_heldout",
    "prompt parity": "prompt.parity",
}


def report() -> None:
    """Say where the reports are, and print their headline numbers with 95 % intervals."""
    from stages.core.stage import load_section

    domain, task = load_section("domain")["name"], load_section("regression")["name"]
    sources = {domain: headline_rows, task: regression_rows}
    found = {name: metrics for name in sources if (metrics := _read_metrics(name)) is not None}
    if not found:
        raise DataError(f"reports/{domain}, reports/{task}: no metrics.json yet; run `dvc repro`")
    for name, metrics in found.items():
        _print(name, sources[name](metrics))


def _read_metrics(name: str) -> Mapping[str, Any] | None:
    path = ROOT / "reports" / name / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None  # type: ignore[no-any-return]


def _print(name: str, rows: Iterator[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{name}: headline numbers", title_justify="left")
    for header, justify in (("", "left"), ("value", "right"), ("95 % interval", "right"), ("n", "right")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]  # rich wants literals
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"report: {ROOT / 'reports' / name / 'report.md'}\n", soft_wrap=True)


def headline_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Of a domain. A number that was not measured for it says so."""
    keys = {f"{label}: exact match": f"answers.{name}.exact_match" for name, label in MODELS.items()}
    for label, key in {**keys, **HEADLINES}.items():
        yield _row(label, _look_up(metrics, key))


def regression_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Of a regression task: what the best system is, and how it compares with what is simpler."""
    (systems,) = metrics["regression"].values()
    for split, best in metrics["best"].items():
        for name in dict.fromkeys(["constant", "nearest", "ridge", "base_expected", best, "ceiling"]):
            if split in systems.get(name, {}):
                label = f"{split}, {name.replace('_', ' ')}{' (best)' if name == best else ''}"
                yield _row(f"{label}: R2", systems[name][split]["r2"])
        yield _row(f"{split}, {best.replace('_', ' ')}: MAE", systems[best][split]["mae"])


def _row(label: str, number: Mapping[str, Any] | None) -> Row:
    if number is None or number["value"] is None:
        return label, "not measured", "", ""
    return label, f"{number['value']:.3f}", f"{number['low']:.3f} to {number['high']:.3f}", str(number["n"])


def _look_up(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    found: Any = metrics
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None
