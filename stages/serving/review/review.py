"""Collects what a branch changes: everything that the page shows and `--json` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from stages.serving.review.cost_diff import CostChange, cost_diff
from stages.serving.review.data_diff import DataChange, Split, data_diff, splits
from stages.serving.review.documents import parse, read_both
from stages.serving.review.metrics_diff import MetricChange, metrics_diff
from stages.serving.review.params_diff import ParamChange, params_diff
from stages.serving.review.plots import Pictures, Plot, plot_paths
from stages.serving.review.revisions import Base, Revisions
from stages.serving.review.settings import Config
from stages.serving.review.stages_diff import StageChange, stages_diff, stale_stages


@dataclass
class Review:
    """A branch against its base. `stale`: stage -> code and parameters that are not those it was run on."""

    base: Base
    head: str
    uncommitted: list[str]
    base_has_metrics: bool
    params: list[ParamChange]
    stages: list[StageChange]
    stale: dict[str, list[str]]
    metrics: list[MetricChange] = field(default_factory=list)
    data: list[DataChange] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    cost: list[CostChange] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    @property
    def regressions(self) -> list[MetricChange]:
        return [change for change in self.metrics if change.regression]

    @property
    def too_costly(self) -> list[CostChange]:
        return [change for change in self.cost if change.exceeded]

    @property
    def passed(self) -> bool:
        return not self.regressions and not self.too_costly

    def to_json(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        regressions = [change.name for change in self.regressions]
        return {"passed": self.passed, "regressions": regressions, **found}


def collect(revisions: Revisions, config: Config, pictures: Pictures | None = None) -> Review:
    """Raises DataError where a file of either side cannot be read."""
    changed = revisions.changed()
    params = read_both(revisions, "params.yaml")
    lock = read_both(revisions, "dvc.lock")
    pipeline = parse(revisions.after("dvc.yaml"), "dvc.yaml")
    review = Review(
        revisions.base,
        revisions.head,
        revisions.uncommitted(),
        revisions.has_metrics(),
        params_diff(*params),
        stages_diff(*lock),
        stale_stages(lock[1], pipeline, params[1], revisions.root),
    )
    for path in changed:
        _collect_report(review, revisions, path, config)
    review.splits = list(_all_splits(revisions))
    if pictures is not None:
        review.plots = pictures(revisions, plot_paths(changed))
    return review


def _collect_report(review: Review, revisions: Revisions, path: str, config: Config) -> None:
    parts = PurePosixPath(path).parts
    if parts[0] != "reports" or not path.endswith(".json"):
        return
    if parts[-1] == "metrics.json":
        name, both = "/".join(parts[1:-1]), read_both(revisions, path)
        review.metrics.extend(metrics_diff(name, *both, config))
        if (change := data_diff(name, *both)) is not None:
            review.data.append(change)
    elif parts[-2] == "cost":
        name = "/".join([*parts[1:-2], parts[-1].removesuffix(".json")])
        review.cost.append(cost_diff(name, *read_both(revisions, path), config.cost))


def _all_splits(revisions: Revisions) -> Iterator[Split]:
    """Of every data stage, changed or not: that a split is the same is worth saying."""
    for file in sorted((revisions.root / "reports").glob("*/*/metrics.json")):
        path = file.relative_to(revisions.root)
        if b"splits_sha256" in file.read_bytes():
            yield from splits("/".join(path.parts[1:-1]), *read_both(revisions, path.as_posix()))
