"""Estimates with 95 % intervals, clustered by source document.

Questions about one document stand or fall together, so documents are drawn, not questions: one question each about
20 documents says more than 20 questions about one. Every statistic is a ratio of sums, sum(numerator) /
sum(denominator); a mean has denominators of one, a loss per token has token counts.

    mean_estimate([1, 0, 1, 1], ["Bako", "Bako", "Mira", "Sul"], seed=13)
    -> Estimate(value=0.75, low=0.29, high=1.0, n=4)

Sources: cluster bootstrap (Davison & Hinkley 1997, 3.8); expanded percentiles for few clusters (Hesterberg 2015,
The American Statistician 69:371); the "rule of three" where nothing varies (Hanley & Lippman-Hand 1983, JAMA 249);
sign-flip randomisation test (Noreen 1989; for language models Dror et al. 2018, ACL).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from stages.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

LEVEL = 0.95
NUM_RESAMPLES = 2000
NUM_EXACT = 12  # clusters up to which every sign pattern is tried
BLOCK_BYTES = 1 << 27


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; n counts observations (questions, chunks), not clusters.

    low and high are None where the data can give none: one source document and a value without bounds.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return {"value": _rounded(self.value), "low": _rounded(self.low), "high": _rounded(self.high), "n": self.n}


@dataclass(frozen=True)
class Difference:
    """a - b over the same questions; p is two-sided, of the hypothesis that the two are exchangeable."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return {
            "difference": _rounded(self.difference),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
            "p": _rounded(self.p),
            "n": self.n,
        }


def mean_estimate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """The mean of `values`, each of which lies within `bounds`."""
    if any(not bounds[0] <= value <= bounds[1] for value in values):
        raise ValueError(f"values outside {bounds}")
    return ratio_estimate(values, [1.0] * len(values), clusters, seed, num_resamples, bounds)


def ratio_estimate(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """sum(numerators) / sum(denominators) with an interval from resampled clusters.

    bounds: what each ratio is known to lie in. Where it is given, data in which nothing varies still get an
    interval that has a width (see `unvaried_interval`); without it, one cluster gives none.
    Raises DataError where there is nothing to estimate or a number is not finite.
    """
    num, den = _cluster_sums(numerators, denominators, clusters)
    value, n = float(num.sum() / den.sum()), len(numerators)
    rates = num / den
    if bounds and float(rates.max() - rates.min()) < 1e-12:
        return Estimate(value, *unvaried_interval(value, len(num), bounds), n)
    if len(num) == 1:
        return Estimate(value, None, None, n)
    low, high = percentile_interval(_resampled(num, den, seed, num_resamples), len(num))
    return Estimate(value, min(low, value), max(high, value), n)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Difference:
    """mean(a) - mean(b) over the same questions, with a clustered bootstrap interval and a sign-flip p value."""
    if not len(a) == len(b) == len(clusters):
        raise ValueError(f"{len(a)}, {len(b)} and {len(clusters)} values are not paired")
    width = bounds[1] - bounds[0]
    differences = [x - y for x, y in zip(a, b, strict=True)]
    estimate = mean_estimate(differences, clusters, seed, num_resamples, (-width, width))
    assert estimate.low is not None and estimate.high is not None  # bounds are given
    sums, _ = _cluster_sums(differences, [1.0] * len(differences), clusters)
    return Difference(estimate.value, estimate.low, estimate.high, sign_flip_p(sums, seed), estimate.n)


def sign_flip_p(sums: Floats, seed: int, num_samples: int = 10_000) -> float:
    """Two-sided p value of cluster sums [K] of differences under random swaps of the pair within whole clusters.

    Exact up to NUM_EXACT clusters, else (1 + extreme samples) / (1 + samples), which is never 0.
    """
    import numpy as np

    observed, tolerance = abs(float(sums.sum())), 1e-9 * (1 + float(np.abs(sums).sum()))
    if len(sums) <= NUM_EXACT:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= observed - tolerance))
    rng = np.random.default_rng([seed, len(sums), 1])
    signs = rng.integers(0, 2, (num_samples, len(sums)), dtype=np.int8)
    extreme = int(np.sum(np.abs((2.0 * signs - 1.0) @ sums) >= observed - tolerance))
    return (1 + extreme) / (1 + num_samples)


def jackknife_interval(value: float, left_out: Sequence[float]) -> tuple[float, float]:
    """value -+ t * standard error, from the statistic with each cluster left out in turn.

    For distances: resampling with replacement repeats documents and so makes every distance larger; leaving one
    out does not. Source: Efron & Stein 1981, The jackknife estimate of variance.
    """
    import numpy as np
    from scipy.special import stdtrit

    k = len(left_out)
    if k < 2:
        raise DataError("jackknife: at least two clusters are needed")
    error = math.sqrt((k - 1) / k * float(np.sum((np.asarray(left_out) - np.mean(left_out)) ** 2)))
    t = float(stdtrit(k - 1, (1 + LEVEL) / 2))
    return value - t * error, value + t * error


def _cluster_sums(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[Floats, Floats]:
    """Sums per cluster, both [K], in order of first appearance."""
    import numpy as np

    if not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} values, {len(denominators)} weights, {len(clusters)} clusters")
    if not numerators:
        raise DataError("nothing to estimate: no observation")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    num, den = np.zeros(len(numbers)), np.zeros(len(numbers))
    np.add.at(num, index, np.asarray(numerators, dtype=float))
    np.add.at(den, index, np.asarray(denominators, dtype=float))
    if not (np.isfinite(num).all() and np.isfinite(den).all()):
        raise DataError("an estimate met a value that is not a number")
    if (den <= 0).any():
        raise DataError("an estimate met a cluster without weight")
    return num, den


def _resampled(num: Floats, den: Floats, seed: int, num_resamples: int) -> Floats:
    """The ratio of sums for each of `num_resamples` draws of K clusters with replacement."""
    import numpy as np

    k = len(num)
    rng = np.random.default_rng([seed, k])
    block = max(1, min(num_resamples, BLOCK_BYTES // (8 * k)))
    parts = []
    for start in range(0, num_resamples, block):
        counts = rng.multinomial(k, np.full(k, 1 / k), size=min(block, num_resamples - start))
        parts.append((counts @ num) / (counts @ den))
    return np.concatenate(parts)


def percentile_interval(samples: Floats, num_clusters: int) -> tuple[float, float]:
    """95 % percentile interval, widened as a t interval is wider than a normal one for K clusters."""
    import numpy as np
    from scipy.special import stdtrit

    t = float(stdtrit(num_clusters - 1, (1 - LEVEL) / 2))
    tail = NormalDist().cdf(math.sqrt(num_clusters / (num_clusters - 1)) * t)
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def unvaried_interval(value: float, num_clusters: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """An interval where all clusters agree, and resampling them would claim certainty.

    If more than a share s of all documents differed, K in a row would agree with probability below (1 - s)^K.
    So with 95 % confidence s <= 1 - .05^(1/K), about 3/K, and those may lie anywhere within the bounds.
    """
    share = 1 - (1 - LEVEL) ** (1 / num_clusters)
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)


def _rounded(number: float | None) -> float | None:
    """Six decimals: below that, sums in another order differ."""
    return None if number is None else round(number, 6)
