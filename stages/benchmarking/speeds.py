"""Figures of speed with 95 % intervals: rates over rounds, quantiles over requests, ratios of two endpoints.

A ratio is the geometric mean of its rounds' ratios: both endpoints answered the same requests in each round, one
right after the other, so what is common to a round cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stages.core.errors import DataError
from stages.evaluation.intervals import LEVEL, NUM_RESAMPLES, Estimate, percentile_interval, ratio_estimate


def rate(amounts: Sequence[float], seconds: Sequence[float], seed: int, num_resamples: int = NUM_RESAMPLES) -> Estimate:
    """sum(amounts) / sum(seconds); n counts the rounds."""
    return ratio_estimate(amounts, seconds, range(len(amounts)), seed, num_resamples)


def mean(values: Sequence[float], seed: int, num_resamples: int = NUM_RESAMPLES) -> Estimate:
    """Of values without bounds, one for each request."""
    return ratio_estimate(values, [1.0] * len(values), range(len(values)), seed, num_resamples)


def quantile(
    groups: Sequence[Sequence[float]], share: float, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """The quantile of all values, each group (a request) drawn as a whole; n counts the values.

    No interval where so few values cannot bound it: of n values the greatest lies above the quantile q with
    probability 1 - q^n (order statistics; Hahn & Meeker 1991, 5.2), and likewise the least below.
    Raises DataError where there is none.
    """
    import numpy as np

    groups = [group for group in groups if group]
    if not groups:
        raise DataError("nothing to estimate: no request has such a time")
    values = np.concatenate([np.asarray(group, dtype=float) for group in groups])
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    value, n, tail = float(np.quantile(values, share)), len(values), (1 - LEVEL) / 2
    if len(groups) < 2 or max(share, 1 - share) ** n > tail:
        return Estimate(value, None, None, n)
    order = np.argsort(values, kind="stable")
    ordered, owners = values[order], owners[order]
    rng = np.random.default_rng([seed, len(groups), n])
    samples = []
    for _ in range(num_resamples):
        drawn = np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))
        below = np.cumsum(drawn[owners])
        samples.append(ordered[np.searchsorted(below, share * below[-1])])
    low, high = percentile_interval(np.asarray(samples), len(groups))
    return Estimate(value, min(low, value), max(high, value), n)


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int, num_resamples: int = NUM_RESAMPLES) -> Estimate:
    """The geometric mean of ours / theirs, round by round; n counts the rounds. All values are above 0."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} rounds are not paired")
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    found = mean(logs, seed, num_resamples)
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return Estimate(math.exp(found.value), low, high, found.n)
