"""Intervals of scores for pairs, which know that pairs share contracts.

Contract c-0017 stands in twenty pairs; where it is misread, all twenty are wrong together, and a bootstrap over pairs
claims far too much. Contracts are drawn instead: each gets a multinomial weight, a pair the product of its two
contracts' weights. Several seeds of a model are scored one by one and averaged; seeds are drawn too.

    bootstrap = PairBootstrap(["c-1", "c-1", "c-2"], ["c-2", "c-3", "c-3"], seed=13)
    bootstrap.estimate(mae, truth, [[0.1, -0.3, 0.8]]).to_json()
    -> {"value": 0.21, "low": 0.09, "high": 0.34, "n": 3}

Shapes: N pairs, C contracts, R resamples, S seeds.

Sources: pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1:386): its variance is not too small, but up to
three times too large where pairs are independent. With a further factor, here seeds: Owen & Eckles 2012, AOAS 6:895.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from stages.core.errors import DataError
from stages.evaluation.intervals import NUM_RESAMPLES, Difference, Estimate, percentile_interval, unvaried_interval
from stages.evaluation.regression_scores import ROUNDING, Floats, Metric

MIN_DEFINED = 0.9  # of the resamples; where a score is undefined in more of them there is no interval
SHARE = (0.0, 1.0)
BLOCK_BYTES = 1 << 24  # of weights at a time
KEPT_BYTES = 1 << 27  # of weights kept for the next metric; where they are more, they are computed anew


@dataclass(frozen=True)
class Undefined:
    """A score that these pairs do not define: R2 where the truth does not vary, a correlation with a constant."""

    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return {"value": None, "low": None, "high": None, "n": self.n}


Score = Estimate | Undefined


class PairBootstrap:
    """Resamples one list of pairs, always in the same way: what it estimates can be compared pair by pair.

    first, second: the ids of the contracts of each pair.
    """

    def __init__(
        self, first: Sequence[str], second: Sequence[str], seed: int, num_resamples: int = NUM_RESAMPLES
    ) -> None:
        if len(first) != len(second):
            raise ValueError(f"{len(first)} and {len(second)} contracts are no pairs")
        if not first:
            raise DataError("nothing to estimate: no pair")
        numbers = {name: n for n, name in enumerate(dict.fromkeys([*first, *second]))}
        self.first = np.array([numbers[name] for name in first])
        self.second = np.array([numbers[name] for name in second])
        self.num_contracts, self.seed, self.num_resamples = len(numbers), seed, num_resamples
        self._counts = self._draw(self.num_contracts, purpose=2)
        self._kept: list[Floats] | None = None

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.first)

    def estimate(
        self, metric: Metric, truth: ArrayLike, predicted: ArrayLike, bounds: tuple[float, float] | None = None
    ) -> Score:
        """The metric's mean over seeds. predicted: [S, N]; bounds: what the metric of one pair lies in, if anything.

        No interval (None) where too few resamples define the metric. With bounds, pairs that all agree still get one
        with a width, of as many pairs as can have no contract in common.
        """
        y, p = self._checked(truth, predicted)
        value = self._value(metric, y, p)
        if not math.isfinite(value):
            return Undefined(self.n)
        samples = self._seed_mean(self._resample(metric, y, p))
        if bounds and np.nanmax(samples) - np.nanmin(samples) < ROUNDING:
            return Estimate(value, *unvaried_interval(value, max(1, self.num_contracts // 2), bounds), self.n)
        low, high = self._interval(samples, value)
        if bounds and low is not None and high is not None:
            low, high = max(low, bounds[0]), min(high, bounds[1])
        return Estimate(value, low, high, self.n)

    def difference(self, metric: Metric, truth: ArrayLike, ours: ArrayLike, theirs: ArrayLike) -> Difference | None:
        """metric(ours) - metric(theirs), each [S, N] with the same seeds in the same order (or one for all).

        p is two-sided, from the same resamples as the interval. None where there is no value or no interval.
        """
        y, a = self._checked(truth, ours)
        _, b = self._checked(truth, theirs)
        if len(a) != len(b) and 1 not in (len(a), len(b)):
            raise ValueError(f"{len(a)} and {len(b)} seeds are not paired")
        value = self._value(metric, y, a) - self._value(metric, y, b)
        samples = self._seed_mean(self._resample(metric, y, a) - self._resample(metric, y, b))
        low, high = self._interval(samples, value) if math.isfinite(value) else (None, None)
        if low is None or high is None:
            return None
        return Difference(value, low, high, self._p(samples[np.isfinite(samples)]), self.n)

    def _checked(self, truth: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
        y, p = np.asarray(truth, dtype=float), np.atleast_2d(np.asarray(predicted, dtype=float))
        if y.shape != (self.n,) or p.shape[1:] != (self.n,):
            raise ValueError(f"{self.n} pairs, truth {y.shape}, predictions {p.shape}")
        if not (np.isfinite(y).all() and np.isfinite(p).all()):
            raise DataError("a score met a value that is not a number")
        return y, p

    def _value(self, metric: Metric, truth: Floats, predicted: Floats) -> float:
        alike = np.full((1, self.n), 1 / self.n)
        return float(np.mean([metric(truth, row, alike)[0] for row in predicted]))

    def _resample(self, metric: Metric, truth: Floats, predicted: Floats) -> Floats:
        """[R, S]; NaN where a resample leaves the metric undefined."""
        blocks = [[metric(truth, row, weights) for row in predicted] for weights in self._weights()]
        return np.concatenate([np.stack(block, axis=1) for block in blocks])

    def _weights(self) -> Iterable[Floats]:
        """Blocks [R', N] of the pairs' weights; rows add up to 1, or are NaN where no pair was drawn."""
        if 8 * self.num_resamples * self.n > KEPT_BYTES:
            return self._draw_weights()
        if self._kept is None:
            self._kept = list(self._draw_weights())
        return self._kept

    def _draw_weights(self) -> Iterator[Floats]:
        size = max(1, BLOCK_BYTES // (8 * self.n))
        for start in range(0, self.num_resamples, size):
            counts = self._counts[start : start + size]
            weights = counts[:, self.first] * counts[:, self.second]
            totals = weights.sum(axis=1, keepdims=True)
            yield weights / np.where(totals > 0, totals, np.nan)

    def _seed_mean(self, samples: Floats) -> Floats:
        """[R, S] -> [R]: the mean over seeds drawn with replacement.

        Draws of S seeds vary by (S - 1) / S too little, a third of the variance for three: they are spread out.
        """
        num_seeds = samples.shape[1]
        if num_seeds == 1:
            return samples[:, 0]
        counts = self._draw(num_seeds, purpose=3)
        shares = 1.0 + (counts - 1.0) * math.sqrt(num_seeds / (num_seeds - 1))
        mean: Floats = (samples * shares).mean(axis=1)
        return mean

    def _draw(self, size: int, purpose: int) -> Floats:
        """[R, size]: how often each of `size` things is drawn when as many are drawn with replacement."""
        rng = np.random.default_rng([self.seed, size, purpose])
        return rng.multinomial(size, np.full(size, 1 / size), size=self.num_resamples).astype(float)

    def _interval(self, samples: Floats, value: float) -> tuple[float | None, float | None]:
        defined = samples[np.isfinite(samples)]
        if self.n < 2 or len(defined) < MIN_DEFINED * len(samples):
            return None, None
        low, high = percentile_interval(defined, self.num_contracts)
        return min(low, value), max(high, value)

    def _p(self, samples: Floats) -> float:
        """Two-sided; below .05 exactly where the interval leaves 0 out, but for the quantiles' rounding."""
        from scipy.special import stdtr

        below, above = int(np.sum(samples <= 0)), int(np.sum(samples >= 0))
        tail = (1 + min(below, above)) / (1 + len(samples))
        if tail >= 0.5:
            return 1.0
        k = self.num_contracts  # undoes the widening of percentile_interval
        return float(2 * stdtr(k - 1, NormalDist().inv_cdf(tail) * math.sqrt((k - 1) / k)))
