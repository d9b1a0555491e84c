"""conf/review: which way a metric is better, and what it may lose."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from stages.core.schema import one_of

DIRECTIONS = ("higher", "lower", "neither")


@dataclass
class MetricRule:
    """For the metrics whose name (`demo.answers.tuned_docs.exact_match`) fits `match`; the first rule that fits counts.

    A metric is guarded where it has a tolerance: a loss beyond tolerance + tolerance_share x the value before is a
    regression.
    """

    match: str = ""
    better: str = "neither"
    tolerance: float | None = None
    tolerance_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.match:
            raise ValueError("metrics: a rule needs a pattern, as in match: '*.exact_match'")
        one_of(self.better, DIRECTIONS, f"metrics: better of {self.match}")
        if (self.tolerance or 0.0) < 0 or self.tolerance_share < 0:
            raise ValueError(f"metrics: the tolerance of {self.match} is negative")


@dataclass
class CostLimits:
    """After divided by before, on the same device; 0: no limit."""

    max_memory_ratio: float = 1.5
    max_time_ratio: float = 0.0


@dataclass
class Config:
    """The section `review` of params.yaml."""

    metrics: list[MetricRule] = field(default_factory=list)
    cost: CostLimits = field(default_factory=CostLimits)
    max_rows: int = 100  # of a folded table; a comment on GitHub holds 65,536 characters

    def rule(self, name: str) -> MetricRule:
        return next((rule for rule in self.metrics if fnmatchcase(name, rule.match)), MetricRule(match="*"))
