"""Rates, quantiles and ratios with their intervals."""

from __future__ import annotations

import pytest

from stages.benchmarking.speeds import quantile, rate, ratio
from stages.core.errors import DataError


def test_a_rate_is_of_sums_not_a_mean_of_rates() -> None:
    found = rate([10.0, 30.0], [1.0, 1.0 / 3], seed=13)
    assert found.value == pytest.approx(30.0) and found.n == 2


def test_quantiles_are_of_all_values() -> None:
    values = [[float(n)] for n in range(1, 101)]
    found = quantile(values, 0.5, seed=13)
    assert (found.value, found.n) == (50.5, 100)
    assert found.low is not None and found.high is not None and 38 < found.low < 50 < found.high < 62


def test_few_values_bound_no_high_quantile() -> None:
    values = [[float(n)] for n in range(40)]
    assert quantile(values, 0.9, seed=13).high is not None  # .9^40 < .025
    assert quantile(values, 0.99, seed=13).high is None
    assert quantile(values[:5], 0.5, seed=13).low is None  # .5^5 > .025


def test_values_of_one_request_are_drawn_together() -> None:
    lump = quantile([[1.0] * 50, [9.0] * 50], 0.5, seed=13)
    spread = quantile([[1.0]] * 50 + [[9.0]] * 50, 0.45, seed=13)
    assert (lump.low, lump.high) == (1.0, 9.0)
    assert spread.value == 1.0


def test_no_value_is_an_error() -> None:
    with pytest.raises(DataError, match="no request has such a time"):
        quantile([[], []], 0.5, seed=13)


def test_a_ratio_is_the_geometric_mean_of_rounds() -> None:
    found = ratio([2.0, 8.0], [1.0, 1.0], seed=13)
    assert found.value == pytest.approx(4.0) and found.n == 2
    assert found.low == pytest.approx(2.0) and found.high == pytest.approx(8.0)
    steady = ratio([10.0, 20.0, 40.0], [5.0, 10.0, 20.0], seed=13)
    assert steady.low == steady.high == pytest.approx(2.0)  # drift that both share cancels out
    with pytest.raises(ValueError, match="not paired"):
        ratio([1.0], [1.0, 2.0], seed=13)
