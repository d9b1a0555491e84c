from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from stages.evaluation.regression_scores import (
    accuracy_key,
    accuracy_within,
    mae,
    metrics,
    mse,
    pearson,
    r2,
    rmse,
    spearman,
)

TRUTH = np.array([0.0, 0.5, 1.0, -0.5])
PREDICTED = np.array([0.1, 0.5, 0.6, -0.8])
ALIKE = np.full((1, 4), 0.25)


def test_metrics_of_four_pairs() -> None:
    """Errors .1, 0, -.4, -.3."""
    assert mae(TRUTH, PREDICTED, ALIKE) == pytest.approx([0.2])
    assert mse(TRUTH, PREDICTED, ALIKE) == pytest.approx([0.065])
    assert rmse(TRUTH, PREDICTED, ALIKE) == pytest.approx([math.sqrt(0.065)])
    assert r2(TRUTH, PREDICTED, ALIKE) == pytest.approx([1 - 0.26 / 1.25])
    assert pearson(TRUTH, PREDICTED, ALIKE) == pytest.approx([stats.pearsonr(TRUTH, PREDICTED)[0]])
    assert spearman(TRUTH, PREDICTED, ALIKE) == pytest.approx([1.0])
    assert accuracy_within(0.2, TRUTH, PREDICTED, ALIKE) == [0.5]


def test_an_error_as_large_as_the_tolerance_is_within_it() -> None:
    truth, predicted = np.array([0.3, 0.3]), np.array([0.1, 0.0999])
    assert accuracy_within(0.2, truth, predicted, np.full((1, 2), 0.5)) == [0.5]


def test_keys_of_metrics() -> None:
    assert [accuracy_key(t) for t in (0.2, 0.5, 0.05, 1.0)] == ["acc_at_0_2", "acc_at_0_5", "acc_at_0_05", "acc_at_1"]
    assert list(metrics([0.2])) == ["mae", "rmse", "r2", "pearson", "spearman", "acc_at_0_2"]


PAIRS = st.lists(
    st.tuples(st.integers(-8, 8), st.integers(-8, 8), st.integers(0, 3)), min_size=2, max_size=12
)  # truth and prediction in quarters, so that there are ties; weight


@given(PAIRS)
def test_a_weight_is_a_number_of_copies(rows: list[tuple[int, int, int]]) -> None:
    truth, predicted, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    truth, predicted = truth / 4, predicted / 4
    y, p = (np.repeat(side, weights.astype(int)) for side in (truth, predicted))
    assume(len(y) > 0)
    shares = weights[None, :] / weights.sum()
    found = {name: metric(truth, predicted, shares)[0] for name, metric in metrics([0.5]).items()}
    assert found["mae"] == pytest.approx(np.mean(abs(y - p)))
    assert found["rmse"] == pytest.approx(math.sqrt(np.mean((y - p) ** 2)))
    assert found["acc_at_0_5"] == pytest.approx(np.mean(abs(y - p) <= 0.5))
    if np.ptp(y) > 0:
        assert found["r2"] == pytest.approx(1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2))
    if np.ptp(y) > 0 and np.ptp(p) > 0:
        assert found["pearson"] == pytest.approx(stats.pearsonr(y, p)[0], abs=1e-9)
        assert found["spearman"] == pytest.approx(stats.spearmanr(y, p)[0], abs=1e-9)
    else:
        assert math.isnan(found["pearson"]) and math.isnan(found["spearman"])
    assert math.isnan(found["r2"]) == (np.ptp(y) == 0)


def test_a_resample_without_any_pair_defines_nothing_and_spoils_no_other() -> None:
    weights = np.vstack([np.full((1, 4), np.nan), ALIKE])
    for metric in metrics([0.2]).values():
        nothing, whole = metric(TRUTH, PREDICTED, weights)
        assert math.isnan(nothing)
        assert whole == metric(TRUTH, PREDICTED, ALIKE)[0]


@given(st.floats(-1, 1), st.integers(2, 40))
def test_rounding_is_no_variance(constant: float, num: int) -> None:
    alike, values, varying = np.full((1, num), 1 / num), np.full(num, constant), np.arange(num) / num
    for metric in (r2, pearson, spearman):
        assert math.isnan(metric(values, varying, alike)[0])
