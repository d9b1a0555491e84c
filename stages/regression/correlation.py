"""The correlation of two price series over the points in time that they share.

N: points of a series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONSTANT = 1e-12  # a spread so small beside the values themselves is rounding, not movement


@dataclass(frozen=True)
class Series:
    """at: int64[N], microseconds since 1970 in UTC, ascending and unique; price: float64[N], finite."""

    at: npt.NDArray[np.int64]
    price: npt.NDArray[np.float64]


def correlate(a: Series, b: Series, changes: bool, min_shared_points: int) -> tuple[float, str]:
    """Pearson's correlation in [-1, 1] and "", or NaN and the reason why there is none.

    The series are aligned first; `changes` are differences between consecutive shared points, so a gap in one series
    is a gap in both. Reasons: no_shared_points, too_few_shared_points, constant_series (over the shared points).
    """
    _, in_a, in_b = np.intersect1d(a.at, b.at, assume_unique=True, return_indices=True)
    if len(in_a) == 0:
        return np.nan, "no_shared_points"
    if len(in_a) < min_shared_points:
        return np.nan, "too_few_shared_points"
    x, y = a.price[in_a], b.price[in_b]
    if changes:
        x, y = np.diff(x), np.diff(y)
    if is_constant(x) or is_constant(y):
        return np.nan, "constant_series"
    x, y = _standardise(x), _standardise(y)
    return float(np.clip(x @ y, -1.0, 1.0)), ""


def is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Whether the values (at least one) do not move, but for rounding."""
    return bool(np.ptp(values) <= CONSTANT * np.max(np.abs(values)))


def _standardise(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centred, of length 1; scaled first, so that squares of tiny or huge values neither vanish nor overflow."""
    centred = values - values.mean()
    centred = centred / np.max(np.abs(centred))
    unit: npt.NDArray[np.float64] = centred / np.linalg.norm(centred)
    return unit
