"""Metrics that differ, each with a verdict that its intervals allow.

A metric is {"value", "low", "high", "n"}, or {"difference", "low", "high", ...}, or a bare number; strings (the best
system, a hash) are no metrics. Two intervals that overlap are `indistinguishable`: both runs answer the same questions,
but only their summaries are here, so that no paired test can be made, and the verdict errs on the careful side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.evaluation.intervals import Estimate
from stages.serving.review.settings import Config, MetricRule

BETTER, WORSE, SAME, CHANGED = "better", "worse", "indistinguishable", "changed"
NO_INTERVAL, NEW, GONE = "no interval", "new", "gone"


@dataclass(frozen=True)
class MetricChange:
    """One metric that differs. lost_too_much: it lost more than its tolerance; regression: and not by chance."""

    name: str
    before: Estimate | None
    after: Estimate | None
    verdict: str
    guarded: bool
    lost_too_much: bool

    @property
    def regression(self) -> bool:
        return self.lost_too_much and self.verdict != SAME


def metrics_diff(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], config: Config
) -> Iterator[MetricChange]:
    """The changes of one metrics.json; `name` is its folder below reports/. A report gone whole lost nothing."""
    old, new = (dict(_estimates(side, name)) for side in (before, after))
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield compare(key, old.get(key), new.get(key), config.rule(key) if after else MetricRule("*"))


def compare(name: str, before: Estimate | None, after: Estimate | None, rule: MetricRule) -> MetricChange:
    """A guarded metric that is gone counts as lost."""
    guarded = rule.tolerance is not None
    if before is None or after is None:
        verdict = NEW if before is None else GONE
        return MetricChange(name, before, after, verdict, guarded, guarded and after is None)
    loss = (before.value - after.value) * {"higher": 1, "lower": -1, "neither": 0}[rule.better]
    allowed = (rule.tolerance or 0.0) + rule.tolerance_share * abs(before.value)
    return MetricChange(name, before, after, _verdict(before, after, loss), guarded, guarded and loss > allowed + 1e-12)


def _verdict(before: Estimate, after: Estimate, loss: float) -> str:
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return NO_INTERVAL
    if before.low <= after.high and after.low <= before.high:
        return SAME
    return CHANGED if loss == 0 else WORSE if loss > 0 else BETTER


def _estimates(values: Any, name: str) -> Iterator[tuple[str, Estimate]]:
    if isinstance(values, Mapping):
        number = values.get("value", values.get("difference"))
        if "low" in values and _is_number(number):
            yield name, Estimate(number, values["low"], values.get("high"), int(values.get("n") or 0))
            return
        for key, value in values.items():
            yield from _estimates(value, f"{name}.{key}")
    elif _is_number(values):
        yield name, Estimate(values, None, None, 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
