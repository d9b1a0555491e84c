"""From what every system predicted for the pairs of a split, to the numbers of reports/<task>/metrics.json.

    {"regression": {"contracts": {"hybrid_expected": {"by_contract": {"r2": {"value": 0.8, "low": ..., "high": ..., "n": 500}}}}},
     "compare": {"hybrid_vs_ce": {"difference": 0.03, "low": ..., "high": ..., "p": ..., "n": 500}},
     "calibration": {"hybrid_expected": {"coverage": {...}, "width": {...}}}, "parse_share": {"hybrid": {...}}}

A system is a way to a number: constant, nearest, ridge, or <model>_<decoding>[_neighbours] of a language model.
Comparisons, calibration and free answers are those of the first split; comparisons of a further split carry its name
(hybrid_vs_ce_by_pair). Shapes: N test pairs, V validation pairs, S seeds, L values.
"""  # noqa: E501  # a sample of the data

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from stages.evaluation.intervals import Difference, Estimate
from stages.evaluation.pair_bootstrap import SHARE, PairBootstrap, Score
from stages.evaluation.regression_conformal import (
    Calibration,
    calibrate_points,
    calibrate_quantiles,
    covered,
    point_intervals,
    quantile_intervals,
)
from stages.evaluation.regression_scores import Floats, Metric, mean, metrics, mse, r2

CEILING = "ceiling"
EXPECTED, GREEDY, HEAD = "expected", "greedy", "head"
NEIGHBOURS = "_neighbours"

Tree = dict[str, Any]  # of Score and Difference


@dataclass(frozen=True)
class Task:
    """What of a task a reader has to know: the key of its number, and the range, decimals and unit."""

    name: str
    json_field: str
    low: float
    high: float
    decimals: int
    unit: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class System:
    """What one system says about one split. validation: [S, V], test: [S, N].

    recipe: "" for what was not trained by one (S is 1 then); seeds: [S] of the recipe. values [L] and probabilities
    [S, V, L], [S, N, L]: the distributions of what has any.
    """

    validation: Floats
    test: Floats
    recipe: str = ""
    decoding: str = ""
    num_neighbours: int = 0
    seeds: tuple[int, ...] = ()
    values: Floats | None = None
    validation_probabilities: Floats | None = None
    test_probabilities: Floats | None = None

    def calibrate(self, truth: Floats, level: float, bounds: tuple[float, float]) -> list[Calibration]:
        """One for each seed, from the validation pairs; of the distributions where there are any."""
        if self.values is None or self.validation_probabilities is None:
            return [calibrate_points(row, truth, level, bounds) for row in self.validation]
        return [calibrate_quantiles(self.values, p, truth, level, bounds) for p in self.validation_probabilities]

    def intervals(self, calibrations: Sequence[Calibration]) -> tuple[Floats, Floats]:
        """Lower and upper ends for the test pairs, each [S, N]."""
        if self.values is None or self.test_probabilities is None:
            ends = [point_intervals(c, row) for c, row in zip(calibrations, self.test, strict=True)]
        else:
            each = zip(calibrations, self.test_probabilities, strict=True)
            ends = [quantile_intervals(c, self.values, probabilities) for c, probabilities in each]
        return np.stack([low for low, _ in ends]), np.stack([high for _, high in ends])


@dataclass(frozen=True)
class FreeAnswers:
    """What a model wrote where nothing held it to the grammar: whether a number was found, and what was odd."""

    parsed: list[bool]
    reasons: list[str]  # "": the answer and nothing else


@dataclass
class SplitResults:
    """All systems on one split. first, second: contract ids of the test pairs; true_values: without sampling noise."""

    name: str
    ids: list[str]
    first: list[str]
    second: list[str]
    truth: Floats
    validation_truth: Floats
    true_values: Floats | None = None
    systems: dict[str, System] = field(default_factory=dict)
    free_answers: dict[str, FreeAnswers] = field(default_factory=dict)
    num_shortened: int = 0
    num_train: int = 0

    @cached_property
    def best(self) -> str:
        """The trained system with the least squared error on the validation pairs; "" where nothing was trained."""
        errors = {
            name: float(np.mean((system.validation - self.validation_truth) ** 2))
            for name, system in self.systems.items()
            if system.recipe
        }
        return min(errors, key=lambda name: errors[name], default="")


@dataclass(frozen=True)
class Summary:
    """Turns results into estimates; the seed makes them reproducible. The first split and recipe lead."""

    task: Task
    splits: Sequence[SplitResults]
    recipes: Sequence[str]
    tolerances: Sequence[float]
    level: float
    seed: int
    num_resamples: int

    @property
    def headline(self) -> SplitResults:
        """The split that comparisons and figures are about."""
        return self.splits[0]

    def tree(self) -> Tree:
        """All numbers."""
        head, bootstrap = self.headline, self._bootstrap(self.headline)
        scores = [(name, split.name, found) for split in self.splits for name, found in self._scores(split).items()]
        tree: Tree = {
            "regression": {self.task.name: _nested(scores)},
            "compare": {
                name if split is head else f"{name}_{split.name}": found
                for split in self.splits
                for name, found in self._comparisons(split).items()
            },
            "calibration": {name: self._coverage(s, head, bootstrap) for name, s in head.systems.items()},
            "parse_share": {name: self._parse_share(free) for name, free in head.free_answers.items()},
            "best": {split.name: split.best for split in self.splits if split.best},
            "num_shortened": {split.name: split.num_shortened for split in self.splits},
        }
        return {key: value for key, value in tree.items() if value}

    def _bootstrap(self, split: SplitResults) -> PairBootstrap:
        return PairBootstrap(split.first, split.second, self.seed, self.num_resamples)

    def _scores(self, split: SplitResults) -> dict[str, dict[str, Score]]:
        bootstrap = self._bootstrap(split)
        predicted = {name: system.test for name, system in split.systems.items()}
        if split.true_values is not None:
            predicted[CEILING] = split.true_values[None, :]
        return {
            name: {
                key: bootstrap.estimate(metric, split.truth, numbers, SHARE if key.startswith("acc") else None)
                for key, metric in metrics(self.tolerances).items()
            }
            for name, numbers in predicted.items()
        }

    def _comparisons(self, split: SplitResults) -> dict[str, Difference]:
        """R2 of one system less R2 of another, and squared errors likewise; only where both systems are there."""
        reference = self.recipes[0] if self.recipes else ""
        pairs = {
            f"{recipe}_vs_{reference}": (f"{recipe}_{EXPECTED}", f"{reference}_{EXPECTED}")
            for recipe in self.recipes[1:]
        }
        if best := split.systems.get(split.best):
            pairs[f"best_vs_{reference}_{GREEDY}"] = (split.best, f"{reference}_{GREEDY}")
            plain = f"{best.recipe}_{best.decoding}"
            pairs["neighbours_vs_none"] = (plain + NEIGHBOURS, plain)
        bootstrap = self._bootstrap(split)
        found = {
            name + suffix: self._difference(split, bootstrap, metric, *pair)
            for name, pair in pairs.items()
            if set(pair) <= set(split.systems)
            for suffix, metric in (("", r2), ("_squared_error", mse))
        }
        return {name: difference for name, difference in found.items() if difference}

    def _difference(
        self, split: SplitResults, bootstrap: PairBootstrap, metric: Metric, ours: str, theirs: str
    ) -> Difference | None:
        """Over the seeds that both systems have."""
        a, b = split.systems[ours], split.systems[theirs]
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        if not seeds:
            return None
        rows = [[system.seeds.index(seed) for seed in seeds] for system in (a, b)]
        return bootstrap.difference(metric, split.truth, a.test[rows[0]], b.test[rows[1]])

    def _coverage(self, system: System, split: SplitResults, bootstrap: PairBootstrap) -> dict[str, Score]:
        calibrations = system.calibrate(split.validation_truth, self.level, self.task.bounds)
        low, high = system.intervals(calibrations)
        hits = covered(low, high, split.truth)
        return {
            "coverage": bootstrap.estimate(mean, split.truth, hits, SHARE),
            "width": bootstrap.estimate(mean, split.truth, high - low),
        }

    def _parse_share(self, free: FreeAnswers) -> Score:
        num, head = len(free.parsed), self.headline
        bootstrap = PairBootstrap(head.first[:num], head.second[:num], self.seed, self.num_resamples)
        return bootstrap.estimate(mean, head.truth[:num], np.asarray(free.parsed, dtype=float), SHARE)

    def calibration(self, model: str) -> Tree:
        """What `predict` needs: of each trained system its best seed on the validation pairs, and its intervals."""
        head = self.headline
        return {
            "task": self.task.name,
            "model": model,
            "split": head.name,
            "level": self.level,
            "best": head.best,
            "systems": {name: self._to_serve(s, head) for name, s in head.systems.items() if s.recipe},
        }

    def _to_serve(self, system: System, split: SplitResults) -> Tree:
        row = int(np.argmin(np.mean((system.validation - split.validation_truth) ** 2, axis=1)))
        calibrations = system.calibrate(split.validation_truth, self.level, self.task.bounds)
        return {
            "recipe": system.recipe,
            "decoding": system.decoding,
            "num_neighbours": system.num_neighbours,
            "seed": system.seeds[row],
            "interval": calibrations[row].to_json(),
        }


def _nested(scores: Sequence[tuple[str, str, dict[str, Score]]]) -> Tree:
    """(system, split, scores) -> {system: {split: scores}}"""
    tree: Tree = {}
    for system, split, found in scores:
        tree.setdefault(system, {})[split] = found
    return tree


def as_json(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates and differences as plain numbers; names and counts as they are."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return as_json(value)
        return value.to_json() if isinstance(value, Score | Difference) else value

    return {key: plain(value) for key, value in sorted(tree.items())}


def value_of(score: Score) -> float | None:
    """The number; None where it is undefined."""
    return score.value if isinstance(score, Estimate) else None
