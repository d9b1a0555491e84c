from __future__ import annotations

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.regression.baselines import PENALTIES, constant_mean, fit_ridge, nearest_mean


def test_the_mean_of_training() -> None:
    assert constant_mean([1.0, 2.0, 6.0], 2).tolist() == [3.0, 3.0]
    with pytest.raises(DataError, match="no training pair"):
        constant_mean([], 2)


def test_the_mean_of_the_nearest() -> None:
    neighbours = [[0.5, 0.1, 9.0], [0.2], []]
    assert nearest_mean(neighbours, 2, [1.0, 3.0]).tolist() == pytest.approx([0.3, 0.2, 2.0])
    assert nearest_mean(neighbours, 1, [1.0, 3.0]).tolist() == [0.5, 0.2, 2.0]
    with pytest.raises(ValueError, match="top_k"):
        nearest_mean(neighbours, 0, [1.0])


@pytest.mark.parametrize(("num_pairs", "dimensions"), [(40, 5), (5, 40), (6, 6)])
def test_ridge_is_its_closed_form(num_pairs: int, dimensions: int) -> None:
    """(X'X + T penalty)^-1 X'y on standardised features."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (num_pairs, dimensions)), rng.normal(1, 1, num_pairs)
    fit = fit_ridge(x, y, x[:5], y[:5], penalties=[0.3])
    z = (x - x.mean(0)) / x.std(0)
    weights = np.linalg.solve(z.T @ z + num_pairs * 0.3 * np.eye(dimensions), z.T @ (y - y.mean()))
    assert fit.weights == pytest.approx(weights)
    new = rng.normal(3, 2, (7, dimensions))
    assert fit.predict(new) == pytest.approx((new - x.mean(0)) / x.std(0) @ weights + y.mean())


def test_features_may_be_scaled_and_shifted() -> None:
    rng = np.random.default_rng(1)
    x, y, new = rng.normal(size=(30, 3)), rng.normal(size=30), rng.normal(size=(4, 3))
    plain = fit_ridge(x, y, x, y, [0.1]).predict(new)
    moved = fit_ridge(x * [1, 10, 1000] + 7, y, x * [1, 10, 1000] + 7, y, [0.1]).predict(new * [1, 10, 1000] + 7)
    assert moved == pytest.approx(plain)


def test_validation_chooses_the_penalty() -> None:
    """Fewer pairs than dimensions: with signal a small penalty, with noise a large one."""
    rng = np.random.default_rng(2)
    x, held = rng.normal(size=(200, 20)), rng.normal(size=(100, 20))
    direction = rng.normal(size=20)
    clean = fit_ridge(x, x @ direction, held, held @ direction)
    assert clean.penalty == min(PENALTIES)
    assert clean.predict(held) == pytest.approx(held @ direction, abs=1e-3)
    noise = fit_ridge(x[:15], rng.normal(size=15), held, rng.normal(size=100))
    assert noise.penalty >= 10


def test_a_constant_feature_has_no_say() -> None:
    x = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    fit = fit_ridge(x, [1.0, 2.0, 3.0], x, [1.0, 2.0, 3.0], [1e-9])
    assert fit.predict([[4.0, 1000.0]]) == pytest.approx([4.0])


def test_ridge_without_pairs_or_numbers() -> None:
    x = np.ones((2, 2))
    with pytest.raises(DataError, match="validation pairs"):
        fit_ridge(x, [1.0, 2.0], np.ones((0, 2)), [])
    with pytest.raises(DataError, match="not a number"):
        fit_ridge(x * np.nan, [1.0, 2.0], x, [1.0, 2.0])
