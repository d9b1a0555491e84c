"""What a sweep's folder holds, read back: its jobs, and its configurations with all their seeds.

runs/<stage>/<sweep>/plan.json    what was asked for: stage, variant, metric, and the jobs with their overrides
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.evaluation.intervals import Estimate
from stages.sweeps.job_file import FINISHED, SCORES_FILE, read_job
from stages.sweeps.metrics import METRICS, Comparison, compare
from stages.sweeps.naming import short_keys, varied_keys
from stages.sweeps.scores import Scores

PLAN_FILE = "plan.json"


@dataclass
class Plan:
    """metric: what is chosen by; "" for a stage that trains nothing. jobs: name -> settings, in order."""

    stage: str
    variant: str
    metric: str
    seed: int
    num_resamples: int
    command: str
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        write_json(
            folder / PLAN_FILE, {**vars(self), "jobs": [[name, list(job.items())] for name, job in self.jobs.items()]}
        )

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Raises DataError where the folder is not a sweep's."""
        try:
            values = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no sweep here") from error
        return cls(**{**values, "jobs": {name: dict(job) for name, job in values["jobs"]}})


@dataclass(frozen=True)
class Job:
    """note: its job.json. metrics: name -> {"value", "low", "high", "n"}."""

    folder: Path
    settings: Mapping[str, str]
    note: Mapping[str, Any]

    @property
    def status(self) -> str:
        return str(self.note.get("status", "not begun"))

    @cached_property
    def measured(self) -> dict[str, Any]:
        """scores.json; empty where the job has not finished, or its stage trains nothing."""
        path = self.folder / SCORES_FILE
        if self.status != FINISHED or not path.exists():
            return {}
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @cached_property
    def reported(self) -> dict[str, float]:
        """The numbers in the metrics.json that the stage itself wrote."""
        found: dict[str, float] = {}
        for path in sorted(self.folder.glob("reports/**/metrics.json")):
            found |= dict(_numbers(json.loads(path.read_text(encoding="utf-8"))))
        return found


@dataclass(frozen=True)
class Configuration:
    """Settings without seeds, and their finished jobs together."""

    settings: Mapping[str, str]
    jobs: list[Job]
    scores: Scores
    estimate: Estimate


@dataclass(frozen=True)
class SweepResults:
    """A whole sweep as it stands."""

    plan: Plan
    jobs: list[Job]

    @classmethod
    def read(cls, folder: Path) -> SweepResults:
        plan = Plan.read(folder)
        jobs = [Job(folder / name, settings, read_job(folder / name)) for name, settings in plan.jobs.items()]
        return cls(plan, jobs)

    @property
    def lower_is_better(self) -> bool:
        return METRICS[self.plan.metric].lower_is_better

    @cached_property
    def varied(self) -> dict[str, str]:
        """The keys that tell configurations apart, each with its short name."""
        return short_keys([key for key in varied_keys(list(self.plan.jobs.values())) if not is_seed(key)])

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The best first."""
        groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
        for job in self.jobs:
            if job.measured:
                groups.setdefault(tuple((k, v) for k, v in job.settings.items() if not is_seed(k)), []).append(job)
        found = [self._configuration(dict(settings), jobs) for settings, jobs in groups.items()]
        sign = 1 if self.plan.metric and self.lower_is_better else -1
        return sorted(found, key=lambda one: sign * one.estimate.value)

    def label(self, one: Configuration, shown: Callable[[str], str] = str) -> str:
        """Its settings that vary, short; each value as `shown` writes it."""
        settings = [f"{short} {shown(one.settings[key])}" for key, short in self.varied.items() if key in one.settings]
        return ", ".join(settings) or "the only configuration"

    def _configuration(self, settings: dict[str, str], jobs: list[Job]) -> Configuration:
        scores = Scores.joined([Scores.from_json(job.measured["scores"]) for job in jobs])
        return Configuration(settings, jobs, scores, self.estimate(self.plan.metric, scores))

    def estimate(self, metric: str, scores: Scores) -> Estimate:
        """One metric of one configuration."""
        return METRICS[metric].estimate(scores, self.plan.seed, self.plan.num_resamples)

    @cached_property
    def versus_runner_up(self) -> Comparison | None:
        """The winner less the runner-up; None where there are no two, or nothing pairs them."""
        if len(self.configurations) < 2:
            return None
        best, second = self.configurations[:2]
        return compare(METRICS[self.plan.metric], best.scores, second.scores, self.plan.seed, self.plan.num_resamples)

    @property
    def indistinguishable(self) -> list[Configuration]:
        """Those that the data do not tell from the winner."""
        best, *others = self.configurations
        metric = METRICS[self.plan.metric]
        against = [
            (one, compare(metric, best.scores, one.scores, self.plan.seed, self.plan.num_resamples)) for one in others
        ]
        return [one for one, found in against if found is None or not found.distinguishable]


def is_seed(key: str) -> bool:
    """Whether an override only says with which random numbers to train."""
    return key.lstrip("+").split(".")[-1] in ("seed", "seeds")


def _numbers(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield f"{prefix}{key}", item
