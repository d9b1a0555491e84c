"""What a benchmark found: figures for each endpoint and setting, and how two endpoints compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.evaluation.intervals import Difference, Estimate, paired_difference

Figures = dict[str, Estimate]  # metric -> estimate

DISTRUSTED = (
    "{name} takes a client's system message for untrusted text and breaks up the marks around the documents in it: "
    "this prompt is not quite that of training"
)


@dataclass
class Section:
    """figures: setting -> row (an endpoint, or a reference beside them) -> metric -> estimate.

    ratios, differences: setting -> metric, the second endpoint against the first. failures: endpoint -> what went
    wrong -> how often. notes: what a reader has to know, and what was not measured.
    """

    name: str
    figures: dict[str, dict[str, Figures]] = field(default_factory=dict)
    ratios: dict[str, Figures] = field(default_factory=dict)
    differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, setting: str, row: str, figures: Figures) -> None:
        self.figures.setdefault(setting, {})[row] = figures

    def add_differences(
        self,
        setting: str,
        scores: Mapping[str, Mapping[str, Sequence[float]]],
        clusters: Sequence[Any],
        seed: int,
    ) -> None:
        """Of two endpoints' scores, within 0 and 1, on the same questions; of one alone there are none."""
        if len(scores) != 2:
            return
        first, second = scores.values()
        self.differences[setting] = {
            metric: paired_difference(second[metric], first[metric], clusters, seed) for metric in first
        }

    def to_json(self) -> dict[str, Any]:
        """As it stands in benchmark.json."""
        return {
            "figures": _nested(self.figures, lambda figures: {k: v.to_json() for k, v in figures.items()}),
            "ratios": {setting: {k: v.to_json() for k, v in found.items()} for setting, found in self.ratios.items()},
            "differences": {s: {k: v.to_json() for k, v in found.items()} for s, found in self.differences.items()},
            "failures": {name: dict(sorted(counts.items())) for name, counts in self.failures.items() if counts},
            "notes": self.notes,
        }


def _nested(tree: dict[str, dict[str, Figures]], leaf: Callable[[Figures], Any]) -> dict[str, dict[str, Any]]:
    return {setting: {row: leaf(figures) for row, figures in rows.items()} for setting, rows in tree.items()}
