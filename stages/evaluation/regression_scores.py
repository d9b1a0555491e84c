"""How well numbers are predicted for pairs. Every metric is weighted, so that a resample is a row of weights.

    r2(truth, predicted, np.full((1, 500), 1 / 500))   -> [0.81], the value itself
    r2(truth, predicted, weights)                      -> [2000], of as many resamples (evaluation.pair_bootstrap)

Shapes: N pairs, R resamples. Rows of weights add up to 1; where a resample drew no pair at all they are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats, Floats], Floats]  # truth [N], predicted [N], weights [R, N] -> [R], NaN: undefined

ROUNDING = 1e-9  # 0.3 - 0.1 is within 0.2


def mean(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean of the numbers themselves, such as the widths of intervals."""
    return _mean(weights, predicted)


def mae(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean absolute error."""
    return _mean(weights, np.abs(predicted - truth))


def mse(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean squared error."""
    return _mean(weights, (predicted - truth) ** 2)


def rmse(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Root of the mean squared error."""
    return np.sqrt(mse(truth, predicted, weights))


def r2(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """1 - squared error / squared error of the mean of these very pairs; undefined where the truth is constant."""
    return 1.0 - mse(truth, predicted, weights) / _variance(weights, truth)


def pearson(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Linear correlation; undefined where either side is constant."""
    return _correlation(weights, truth, predicted)


def spearman(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Correlation of the ranks, which are those of the weighted sample; ties share their mean rank."""
    return _correlation(weights, _ranks(weights, truth), _ranks(weights, predicted))


def accuracy_within(tolerance: float, truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Share of pairs whose error is at most `tolerance`."""
    return _mean(weights, (np.abs(predicted - truth) <= tolerance + ROUNDING).astype(float))


def accuracy_key(tolerance: float) -> str:
    """0.2 -> acc_at_0_2"""
    return f"acc_at_{tolerance:g}".replace(".", "_")


def metrics(tolerances: Sequence[float]) -> dict[str, Metric]:
    """All metrics by the key that they have in metrics.json."""
    within = {accuracy_key(tolerance): partial(accuracy_within, tolerance) for tolerance in tolerances}
    return {"mae": mae, "rmse": rmse, "r2": r2, "pearson": pearson, "spearman": spearman, **within}


def _variance(weights: Floats, values: Floats) -> Floats:
    """Variance [R] of values [N] or [R, N]; NaN where those that have weight do not vary, but for rounding."""
    variance = _covariance(weights, values, values)
    return np.where(variance > 1e-12 * _mean(weights, values**2), variance, np.nan)


def _covariance(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Covariance [R] of x and y, each [N] or [R, N]."""
    x = x - x.mean(axis=-1, keepdims=True)  # of whatever weight: only against cancellation
    y = y - y.mean(axis=-1, keepdims=True)
    return _mean(weights, x * y) - _mean(weights, x) * _mean(weights, y)


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Correlation [R] of x and y, each [N] or [R, N]."""
    correlation = _covariance(weights, x, y) / np.sqrt(_variance(weights, x) * _variance(weights, y))
    return np.clip(correlation, -1.0, 1.0)


def _mean(weights: Floats, values: Floats) -> Floats:
    """Weighted mean [R] of values [N] or [R, N]."""
    # Not `weights @ values`: where cores are busy, the threads of BLAS wait for each other, 50 times as long.
    means: Floats = np.einsum("rn,n->r" if values.ndim == 1 else "rn,rn->r", weights, values)
    return means


def _ranks(weights: Floats, values: Floats) -> Floats:
    """[R, N]: the mean rank of each value, between 0 and 1, where every pair counts as much as its weight says."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    group = np.add.reduceat(weights[:, order], starts, axis=1)  # weight of each distinct value
    middle = np.cumsum(group, axis=1) - group / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = np.repeat(middle, np.diff(np.r_[starts, len(values)]), axis=1)
    return ranks
