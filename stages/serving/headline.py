"""`groundtune report`: where the report of the configured domain is, and its headline numbers.

Reads reports/<domain>/metrics.json, in which each number is {"value", "low", "high", "n"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stages.core.workspace import Workspace

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
    """Say where the report is, and print its headline numbers with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    from stages.core.stage import load_section

    workspace, domain = Workspace(), load_section("domain")["name"]
    metrics = json.loads(workspace.read(f"reports/{domain}/metrics.json").read_text(encoding="utf-8"))
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{domain}: headline numbers", title_justify="left")
    for header, justify in (("", "left"), ("value", "right"), ("95 % interval", "right"), ("n", "right")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]  # rich wants literals
    for row in headline_rows(metrics):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"report: {workspace.read(f'reports/{domain}/report.md')}", soft_wrap=True)


def headline_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Label, value, interval, n. A number that was not measured for this domain says so."""
    keys = {f"{label}: exact match": f"answers.{name}.exact_match" for name, label in MODELS.items()}
    for label, key in {**keys, **HEADLINES}.items():
        number = _look_up(metrics, key)
        if number is None:
            yield label, "not measured", "", ""
        else:
            yield label, f"{number['value']:.3f}", f"{number['low']:.3f} to {number['high']:.3f}", str(number["n"])


def _look_up(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    found: Any = metrics
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None
