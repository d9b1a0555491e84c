"""What a language model has to beat: the mean, the neighbours' values, and a linear model of the pairs' embeddings.

Shapes: N pairs to predict, T training pairs, V validation pairs, D dimensions, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.core.errors import DataError

Floats = NDArray[np.float64]

PENALTIES = tuple(10.0**power for power in range(-5, 4))  # times the number of training pairs


def constant_mean(training_values: ArrayLike, num_pairs: int) -> Floats:
    """The training pairs' mean for every pair [N]. Raises DataError without any."""
    values = np.asarray(training_values, dtype=float)
    if not values.size:
        raise DataError("baseline: no training pair")
    return np.full(num_pairs, values.mean())


def nearest_mean(neighbour_values: Sequence[Sequence[float]], top_k: int, training_values: ArrayLike) -> Floats:
    """The mean [N] of the values of each pair's first `top_k` neighbours, nearest first.

    A pair without neighbours gets the mean of all training pairs.
    """
    if top_k < 1:
        raise ValueError(f"top_k: {top_k} is less than 1")
    predicted = constant_mean(training_values, len(neighbour_values))
    for row, values in enumerate(neighbour_values):
        if len(values):
            predicted[row] = np.mean(values[:top_k])
    return predicted


@dataclass(frozen=True)
class Ridge:
    """Linear regression with an L2 penalty on standardised features (Hoerl & Kennard 1970, Technometrics 12:55).

    penalty: per training pair, as chosen; mean, scale: of the features, both [D]; weights: [D].
    """

    penalty: float
    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def predict(self, features: ArrayLike) -> Floats:
        """Values [N] of features [N, D]."""
        standardised = (np.asarray(features, dtype=float) - self.mean) / self.scale
        predicted: Floats = standardised @ self.weights + self.intercept
        return predicted


def fit_ridge(
    features: ArrayLike,
    values: ArrayLike,
    validation_features: ArrayLike,
    validation_values: ArrayLike,
    penalties: Sequence[float] = PENALTIES,
) -> Ridge:
    """Fits features [T, D] to values [T] with the penalty that has the least squared error on the V validation pairs.

    One eigendecomposition, of X'X or of XX' where that is smaller, serves all penalties: weights = (X'X + T penalty)^-1
    X'y. Features that do not vary in training have no say. Of equal penalties the larger one wins.
    Raises DataError where there is no pair, or a number is not finite.
    """
    x, y = np.asarray(features, dtype=float), np.asarray(values, dtype=float)
    held_x, held_y = np.asarray(validation_features, dtype=float), np.asarray(validation_values, dtype=float)
    if not len(y) or not len(held_y):
        raise DataError("ridge: it needs training and validation pairs")
    if not all(np.isfinite(numbers).all() for numbers in (x, y, held_x, held_y)):
        raise DataError("ridge: an embedding or a value is not a number")
    mean, spread, intercept = x.mean(axis=0), x.std(axis=0), float(y.mean())
    scale = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)
    standardised, centred = (x - mean) / scale, y - intercept
    if x.shape[1] > len(y):
        eigenvalues, axes = np.linalg.eigh(standardised @ standardised.T)
        projected, back = axes.T @ centred, standardised.T @ axes
    else:
        eigenvalues, axes = np.linalg.eigh(standardised.T @ standardised)
        projected, back = axes.T @ (standardised.T @ centred), axes
    fits = [
        Ridge(penalty, mean, scale, back @ (projected / (eigenvalues + len(y) * penalty)), intercept)
        for penalty in sorted(penalties, reverse=True)
    ]
    return min(fits, key=lambda fit: float(np.mean((fit.predict(held_x) - held_y) ** 2)))
