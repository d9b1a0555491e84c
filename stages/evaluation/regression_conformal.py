"""Intervals that hold the true value as often as they say, calibrated on pairs that training never saw.

A model's distribution over whole values has quantiles, but they are as wrong as the model is sure of itself. How far
the truth lies outside of them on the validation pairs says how much to move them: conformalised quantile regression
(Romano, Patterson & Candes 2019, arXiv:1905.03222, algorithm 1). A model that gives only a number gets the absolute
errors' quantile on both sides: split conformal prediction (Lei et al. 2018, JASA 113:1094).

    calibration = calibrate_quantiles(values, probabilities, truth, level=0.9, bounds=(-1.0, 1.0))
    calibration.to_json() -> {"kind": "quantiles", "level": 0.9, "margin": 0.03, "low": -1.0, "high": 1.0, "n": 400}
    quantile_intervals(calibration, values, probabilities[:1]) -> [-0.61], [-0.17]

The promise holds for pairs like those calibrated on. Pairs share contracts, and by_contract the test pairs have other
contracts than the validation pairs, so coverage is also measured. Shapes: N pairs, L values, ascending.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.core.errors import DataError

Floats = NDArray[np.float64]

QUANTILES = "quantiles"
POINT = "point"
ROUNDING = 1e-9  # of sums of probabilities, and of (n + 1) * level


@dataclass(frozen=True)
class Calibration:
    """How intervals of one model are made. margin: what they are moved outwards by (inwards below 0), on each side.

    level: the share of true values that they are to hold. low, high: the range of the task's values. n: the pairs
    calibrated on; margin is infinite, and the interval the whole range, where they are too few for the level.
    """

    kind: str  # quantiles | point
    level: float
    margin: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """An infinite margin is written as null: JSON has no infinity."""
        return {**asdict(self), "margin": self.margin if math.isfinite(self.margin) else None}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Raises DataError where a key is missing or unknown."""
        if (wanted := {field.name for field in fields(cls)}) != set(entry):
            raise DataError(f"calibration: keys {sorted(entry)} instead of {sorted(wanted)}; run evaluate_regression")
        return cls(**{**entry, "margin": math.inf if entry["margin"] is None else entry["margin"]})


def calibrate_quantiles(
    values: ArrayLike, probabilities: ArrayLike, truth: ArrayLike, level: float, bounds: tuple[float, float]
) -> Calibration:
    """From distributions [N, L] over values [L] and what was true [N]."""
    y = np.asarray(truth, dtype=float)
    low, high = _central(values, probabilities, level)
    margin = _conformal_quantile(np.maximum(low - y, y - high), level)
    return Calibration(QUANTILES, level, margin, *bounds, len(y))


def calibrate_points(predicted: ArrayLike, truth: ArrayLike, level: float, bounds: tuple[float, float]) -> Calibration:
    """From predicted numbers [N] and what was true [N]."""
    errors = np.abs(np.asarray(predicted, dtype=float) - np.asarray(truth, dtype=float))
    return Calibration(POINT, level, _conformal_quantile(errors, level), *bounds, len(errors))


def quantile_intervals(calibration: Calibration, values: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper ends, both [N], of distributions [N, L]."""
    return _moved(calibration, *_central(values, probabilities, calibration.level))


def point_intervals(calibration: Calibration, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Lower and upper ends, both [N], around predicted numbers [N]."""
    numbers = np.asarray(predicted, dtype=float)
    return _moved(calibration, numbers, numbers)


def covered(low: Floats, high: Floats, truth: ArrayLike) -> Floats:
    """1 where an interval holds the truth, else 0."""
    y = np.asarray(truth, dtype=float)
    return ((low - ROUNDING <= y) & (y <= high + ROUNDING)).astype(float)


def quantile(values: ArrayLike, probabilities: ArrayLike, share: float) -> Floats:
    """The smallest value [N] up to which at least `share` of the probability lies."""
    cumulative = np.cumsum(np.asarray(probabilities, dtype=float), axis=1)
    reached = cumulative >= share * cumulative[:, -1:] - ROUNDING
    numbers: Floats = np.asarray(values, dtype=float)[np.argmax(reached, axis=1)]
    return numbers


def _central(values: ArrayLike, probabilities: ArrayLike, level: float) -> tuple[Floats, Floats]:
    tail = (1.0 - level) / 2
    return quantile(values, probabilities, tail), quantile(values, probabilities, 1.0 - tail)


def _conformal_quantile(scores: Floats, level: float) -> float:
    """The ceil((n + 1) level)-th smallest score: a new one is at most that with probability `level` or more."""
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not between 0 and 1")
    if not len(scores) or not np.isfinite(scores).all():
        raise DataError("calibration: no validation pair, or a prediction that is not a number")
    rank = math.ceil((len(scores) + 1) * level - ROUNDING)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _moved(calibration: Calibration, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Both ends moved and clipped to the range; ends that would cross meet in the middle."""
    middle = (low + high) / 2
    low, high = np.minimum(low - calibration.margin, middle), np.maximum(high + calibration.margin, middle)
    return np.clip(low, calibration.low, calibration.high), np.clip(high, calibration.low, calibration.high)
