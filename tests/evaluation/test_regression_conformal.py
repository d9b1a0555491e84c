from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.evaluation.regression_conformal import (
    Calibration,
    calibrate_points,
    calibrate_quantiles,
    covered,
    point_intervals,
    quantile,
    quantile_intervals,
)

BOUNDS = (-1.0, 1.0)
VALUES = np.round(np.linspace(-1, 1, 201), 2)


def bells(means: Any, spread: Any) -> Any:
    """Normal distributions over VALUES."""
    density = np.exp(-0.5 * ((VALUES[None, :] - means[:, None]) / np.reshape(spread, (-1, 1))) ** 2)
    return density / density.sum(axis=1, keepdims=True)


def test_quantiles_of_a_distribution() -> None:
    probabilities = [[0.05, 0.15, 0.6, 0.2], [0.0, 0.0, 0.0, 1.0]]
    values = [1.0, 2.0, 3.0, 4.0]
    assert quantile(values, probabilities, 0.05).tolist() == [1.0, 4.0]
    assert quantile(values, probabilities, 0.06).tolist() == [2.0, 4.0]
    assert quantile(values, probabilities, 0.2).tolist() == [2.0, 4.0]
    assert quantile(values, probabilities, 0.95).tolist() == [4.0, 4.0]
    assert quantile(values, [[0.1, 0.1, 0.1, 0.1]], 1.0).tolist() == [4.0]  # unnormalised


def test_the_margin_of_numbers_is_a_quantile_of_their_errors() -> None:
    """9 errors .1 ... .9: the 8th for 80 %, ceil(10 * .8); 95 % needs 19 errors."""
    truth = np.arange(1, 10) / 10
    assert calibrate_points(np.zeros(9), truth, 0.8, BOUNDS).margin == pytest.approx(0.8)
    assert calibrate_points(np.zeros(9), truth, 0.9, BOUNDS).margin == pytest.approx(0.9)
    assert calibrate_points(np.zeros(9), truth, 0.95, BOUNDS).margin == math.inf


def test_too_few_pairs_give_the_whole_range() -> None:
    calibration = calibrate_points([0.0], [0.1], 0.9, BOUNDS)
    assert [end.tolist() for end in point_intervals(calibration, [0.5])] == [[-1.0], [1.0]]


def test_intervals_end_at_the_range() -> None:
    calibration = Calibration("point", 0.9, 0.5, -1.0, 1.0, 10)
    low, high = point_intervals(calibration, [0.75, 0.0, -1.0])
    assert low.tolist() == [0.25, -0.5, -1.0]
    assert high.tolist() == [1.0, 0.5, -0.5]


def test_the_margin_of_quantiles_by_hand() -> None:
    """90 % of each distribution lies in [0, 1]; the truth lies .2 above, .1 below, .3 inside."""
    values, probabilities = [0.0, 0.5, 1.0], [[0.3, 0.4, 0.3]] * 3
    calibration = calibrate_quantiles(values, probabilities, [1.2, -0.1, 0.3], 0.5, (-2.0, 2.0))
    assert calibration.margin == pytest.approx(0.1)  # the 2nd of -.3, .1, .2
    low, high = quantile_intervals(calibration, values, probabilities[:1])
    assert (low[0], high[0]) == (pytest.approx(-0.1), pytest.approx(1.1))


def test_ends_that_would_cross_meet_in_the_middle() -> None:
    calibration = Calibration("quantiles", 0.5, -0.4, -1.0, 1.0, 10)
    low, high = quantile_intervals(calibration, [0.0, 0.5, 1.0], [[0.3, 0.4, 0.3], [0.0, 1.0, 0.0]])
    assert low.tolist() == pytest.approx([0.4, 0.5])
    assert high.tolist() == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize("spread", [0.03, 0.1, 0.3])
def test_overconfident_and_underconfident_models_cover_alike(spread: float) -> None:
    """The truth is .1 around the mean, whatever the model says of it."""
    rng = np.random.default_rng(0)
    means = rng.uniform(-0.5, 0.5, 4000)
    truth = means + rng.normal(0, 0.1, 4000)
    probabilities = bells(means, spread)
    calibration = calibrate_quantiles(VALUES, probabilities[:2000], truth[:2000], 0.9, BOUNDS)
    low, high = quantile_intervals(calibration, VALUES, probabilities[2000:])
    assert covered(low, high, truth[2000:]).mean() == pytest.approx(0.9, abs=0.02)
    assert np.mean(high - low) == pytest.approx(2 * 1.645 * 0.1, rel=0.1)
    assert (calibration.margin < 0) == (spread == 0.3)


def test_a_model_that_knows_when_it_is_unsure_has_narrower_intervals() -> None:
    rng = np.random.default_rng(1)
    spread = rng.choice([0.02, 0.2], 4000)
    truth = rng.normal(0, spread)
    probabilities = bells(np.zeros(4000), spread)
    by_quantiles = calibrate_quantiles(VALUES, probabilities[:2000], truth[:2000], 0.9, BOUNDS)
    by_errors = calibrate_points(np.zeros(2000), truth[:2000], 0.9, BOUNDS)
    low, high = quantile_intervals(by_quantiles, VALUES, probabilities[2000:])
    wide_low, wide_high = point_intervals(by_errors, np.zeros(2000))
    assert covered(low, high, truth[2000:]).mean() == pytest.approx(0.9, abs=0.02)
    assert covered(wide_low, wide_high, truth[2000:]).mean() == pytest.approx(0.9, abs=0.02)
    assert np.mean(high - low) < 0.8 * np.mean(wide_high - wide_low)


def test_coverage_counts_the_ends() -> None:
    low, high = np.array([0.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.5])
    assert covered(low, high, [0.0, 0.5, 0.51]).tolist() == [1.0, 1.0, 0.0]


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=40),
    st.floats(0.05, 0.95),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda p: sum(p) > 0.1),
)
def test_intervals_stay_in_range_and_hold_enough_of_what_they_were_made_from(
    rows: list[tuple[float, float]], level: float, weights: list[float]
) -> None:
    predicted, truth = np.array(rows).T
    probabilities = np.tile(np.array(weights) / sum(weights), (len(rows), 1))
    values = [-1.0, 0.0, 1.0]
    of_points = calibrate_points(predicted, truth, level, BOUNDS)
    of_quantiles = calibrate_quantiles(values, probabilities, truth, level, BOUNDS)
    for low, high in (
        point_intervals(of_points, predicted),
        quantile_intervals(of_quantiles, values, probabilities),
    ):
        assert (low >= -1).all() and (high <= 1).all() and (low <= high).all()
        crossed = of_quantiles.margin < 0  # ends that meet hold less than was asked for
        assert crossed or covered(low, high, truth).mean() >= level - 1e-9


def test_an_entry_survives_json() -> None:
    for margin in (0.25, math.inf):
        calibration = Calibration("point", 0.9, margin, 1.0, 5.0, 3)
        text = json.dumps(calibration.to_json(), allow_nan=False)
        assert Calibration.from_json(json.loads(text)) == calibration
    with pytest.raises(DataError, match="run evaluate_regression"):
        Calibration.from_json({"kind": "point"})


def test_nothing_to_calibrate_on_is_an_error() -> None:
    with pytest.raises(DataError, match="no validation pair"):
        calibrate_points([], [], 0.9, BOUNDS)
    with pytest.raises(DataError, match="not a number"):
        calibrate_points([math.nan], [0.0], 0.9, BOUNDS)
    with pytest.raises(ValueError, match="level"):
        calibrate_points([0.0], [0.0], 1.0, BOUNDS)
