"""The metrics that a sweep can be chosen by, each with its interval, and its difference between two configurations.

A difference is paired: over the same questions, and over the same seeds. The interval over questions says whether it
would hold for other questions, the one over seeds whether for other trainings; two configurations count as different
only where each interval that there is leaves 0 out (intersection-union test; Berger 1982, Technometrics 24:295), and
the exact test of signs over questions agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stages.evaluation.intervals import Difference, Estimate, jackknife_interval, ratio_estimate, sign_flip_p
from stages.sweeps.scores import Scores

MAX_P = 0.05


@dataclass(frozen=True)
class Ratio:
    """sum of a column / sum of weights, a mean where nothing weighs; values are means over seeds.

    logarithm: the value is exp of the ratio, as perplexity is of the loss; differences are of the loss.
    """

    column: str
    lower_is_better: bool
    weighted: bool = False
    bounds: tuple[float, float] | None = None
    logarithm: bool = False

    def estimate(self, scores: Scores, seed: int, num_resamples: int) -> Estimate:
        """Raises DataError where there is no item."""
        found = self._ratio(_seed_means(scores.columns[self.column]), scores, seed, num_resamples, self.bounds)
        if not self.logarithm:
            return found
        low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
        return Estimate(math.exp(found.value), low, high, found.n)

    def difference(self, ours: Scores, theirs: Scores, seed: int, num_resamples: int) -> Difference | None:
        """ours - theirs. None where there is no interval: one source document, and no bounds."""
        a, b = (_seed_means(scores.columns[self.column]) for scores in (ours, theirs))
        differences = [x - y for x, y in zip(a, b, strict=True)]
        width = self.bounds[1] - self.bounds[0] if self.bounds else 0.0
        found = self._ratio(differences, ours, seed, num_resamples, (-width, width) if width else None)
        if found.low is None or found.high is None:
            return None
        p = sign_flip_p(_cluster_sums(differences, ours.groups), seed)
        return Difference(found.value, found.low, found.high, p, found.n)

    def _ratio(
        self,
        values: Sequence[float],
        scores: Scores,
        seed: int,
        num_resamples: int,
        bounds: tuple[float, float] | None,
    ) -> Estimate:
        weights = scores.weights if self.weighted else [1.0] * len(values)
        return ratio_estimate(values, weights, [tuple(group) for group in scores.groups], seed, num_resamples, bounds)


@dataclass(frozen=True)
class OfPairs:
    """A score of predicted numbers. of: its name in evaluation.regression_scores; `mean`: of the column itself."""

    column: str
    of: str
    lower_is_better: bool

    def estimate(self, scores: Scores, seed: int, num_resamples: int) -> Estimate:
        """Raises DataError where the pairs do not define it."""
        found: Any = _bootstrap(_hashable(scores.groups), seed, num_resamples).estimate(
            self._score, scores.truth, scores.columns[self.column]
        )
        return found if isinstance(found, Estimate) else Estimate(math.nan, None, None, found.n)

    def difference(self, ours: Scores, theirs: Scores, seed: int, num_resamples: int) -> Difference | None:
        """ours - theirs; None where it has no interval."""
        bootstrap = _bootstrap(_hashable(ours.groups), seed, num_resamples)
        columns = ours.columns[self.column], theirs.columns[self.column]
        found: Difference | None = bootstrap.difference(self._score, ours.truth, *columns)
        return found

    @property
    def _score(self) -> Callable[..., Any]:
        from stages.evaluation import regression_scores

        return getattr(regression_scores, self.of)  # type: ignore[no-any-return]


Metric = Ratio | OfPairs

METRICS: dict[str, Metric] = {
    "loss": Ratio("nll", lower_is_better=True, weighted=True),
    "perplexity": Ratio("nll", lower_is_better=True, weighted=True, logarithm=True),
    "exact_match": Ratio("exact_match", lower_is_better=False, bounds=(0.0, 1.0)),
    "token_f1": Ratio("token_f1", lower_is_better=False, bounds=(0.0, 1.0)),
    "mae": OfPairs("predicted", "mae", lower_is_better=True),
    "r2": OfPairs("predicted", "r2", lower_is_better=False),
    "crps": OfPairs("crps", "mean", lower_is_better=True),
}


@dataclass(frozen=True)
class Comparison:
    """over_questions: ours - theirs. over_seeds: its interval over trainings, where there are several seeds."""

    over_questions: Difference | None
    over_seeds: tuple[float, float] | None
    num_seeds: int

    @property
    def by_chance(self) -> bool:
        """Whether signs alone may be so: of few documents an interval is too narrow, this test then finds nothing."""
        return self.over_questions is not None and self.over_questions.p >= MAX_P

    @property
    def distinguishable(self) -> bool:
        """Whether no interval that there is holds 0, and chance does not explain it."""
        if self.over_questions is None or self.by_chance:
            return False
        intervals = [(self.over_questions.low, self.over_questions.high)]
        intervals += [self.over_seeds] if self.over_seeds else []
        return all(low > 0 or high < 0 for low, high in intervals)


def compare(metric: Metric, ours: Scores, theirs: Scores, seed: int, num_resamples: int) -> Comparison | None:
    """ours - theirs, over the seeds that both have; None where they share none, or were asked different questions."""
    seeds = [one for one in ours.seeds if one in theirs.seeds]
    if not seeds or ours.ids != theirs.ids:
        return None
    a, b = ours.of_seeds(seeds), theirs.of_seeds(seeds)
    found = metric.difference(a, b, seed, num_resamples)
    return Comparison(found, _over_seeds(metric, a, b, seed), len(seeds))


def _over_seeds(metric: Metric, ours: Scores, theirs: Scores, seed: int) -> tuple[float, float] | None:
    """A t interval of the mean difference between trainings that share a seed."""
    seeds = ours.seeds
    if len(seeds) < 2:
        return None
    values = [
        metric.estimate(ours.of_seeds([one]), seed, 1).value - metric.estimate(theirs.of_seeds([one]), seed, 1).value
        for one in seeds
    ]
    left_out = [(sum(values) - value) / (len(values) - 1) for value in values]
    return jackknife_interval(sum(values) / len(values), left_out)


def _seed_means(column: Sequence[Sequence[float]]) -> list[float]:
    """[S, N] -> [N]"""
    return [sum(values) / len(values) for values in zip(*column, strict=True)]


def _cluster_sums(values: Sequence[float], groups: Sequence[Sequence[str]]) -> Any:
    import numpy as np

    sums: dict[tuple[str, ...], float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[tuple(group)] = sums.get(tuple(group), 0.0) + value
    return np.array(list(sums.values()))


def _hashable(groups: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, groups))


@lru_cache(maxsize=4)
def _bootstrap(groups: tuple[tuple[str, ...], ...], seed: int, num_resamples: int) -> Any:
    """One for all configurations: its resamples are kept."""
    from stages.evaluation.pair_bootstrap import PairBootstrap

    first, second = zip(*groups, strict=True)
    return PairBootstrap(first, second, seed, num_resamples)
