from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.evaluation.intervals import Estimate
from stages.evaluation.pair_bootstrap import SHARE, PairBootstrap, Undefined
from stages.evaluation.regression_scores import accuracy_within, mae, mse, pearson, r2, spearman


def chain(n: int) -> PairBootstrap:
    """n pairs of n + 1 contracts: 0-1, 1-2, 2-3, ..."""
    return PairBootstrap([str(i) for i in range(n)], [str(i + 1) for i in range(n)], seed=1, num_resamples=500)


def complete(num_contracts: int, seed: int = 1, num_resamples: int = 500) -> tuple[PairBootstrap, Any, Any]:
    """Every pair of so many contracts; with the two contracts' numbers."""
    a, b = np.array(list(itertools.combinations(range(num_contracts), 2))).T
    return PairBootstrap([str(i) for i in a], [str(i) for i in b], seed, num_resamples), a, b


def test_an_estimate_and_its_seed() -> None:
    bootstrap, a, b = complete(12)
    truth = np.sin(a + 2.0 * b)
    predicted = truth + 0.1 * np.cos(a)
    estimate = bootstrap.estimate(mae, truth, predicted)
    assert isinstance(estimate, Estimate)
    assert estimate.value == pytest.approx(np.mean(abs(truth - predicted)))
    assert estimate.n == 66
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.value < estimate.high
    assert complete(12)[0].estimate(mae, truth, predicted) == estimate
    assert complete(12, seed=2)[0].estimate(mae, truth, predicted) != estimate


def test_large_and_small_data_are_resampled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, kept or not."""
    bootstrap, a, b = complete(12)
    kept = bootstrap.estimate(spearman, np.sin(a + b), np.cos(a))
    assert bootstrap.estimate(spearman, np.sin(a + b), np.cos(a)) == kept
    monkeypatch.setattr("stages.evaluation.pair_bootstrap.BLOCK_BYTES", 8 * 66 * 7)
    monkeypatch.setattr("stages.evaluation.pair_bootstrap.KEPT_BYTES", 0)
    streamed = complete(12)[0].estimate(spearman, np.sin(a + b), np.cos(a))
    assert isinstance(streamed, Estimate) and isinstance(kept, Estimate)
    assert (streamed.value, streamed.low, streamed.high) == pytest.approx((kept.value, kept.low, kept.high))


def test_a_misread_contract_widens_the_interval() -> None:
    """The same errors once with the contract that causes them, once spread over the pairs."""
    bootstrap, a, b = complete(20)
    shared = ((a < 4) | (b < 4)).astype(float)  # wrong by 1 wherever one of four contracts stands
    spread = np.random.default_rng(0).permutation(shared)
    zeros = np.zeros(len(a))
    assert width(bootstrap.estimate(mae, zeros, shared)) > 1.5 * width(bootstrap.estimate(mae, zeros, spread))


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    """150 studies of 20 contracts whose difficulties their pairs share, and 3 seeds with luck of their own."""
    rng, covered = np.random.default_rng(0), 0
    for study in range(150):
        bootstrap, a, b = complete(20, seed=study, num_resamples=300)
        difficulty = rng.gamma(2, 0.5, 20)
        errors = difficulty[a] + difficulty[b] + rng.gamma(1, 0.3, (3, 1))
        estimate = bootstrap.estimate(mae, np.zeros(len(a)), errors)
        assert isinstance(estimate, Estimate) and estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 2.3 <= estimate.high
    assert 0.9 <= covered / 150 <= 0.99


def test_seeds_are_averaged_and_widen_the_interval() -> None:
    bootstrap, a, b = complete(30)
    truth = np.cos(3.0 * a + b)
    alike = bootstrap.estimate(mae, truth, np.stack([truth + 0.2] * 3))
    apart = bootstrap.estimate(mae, truth, np.stack([truth + shift for shift in (0.0, 0.2, 0.4)]))
    assert isinstance(alike, Estimate) and isinstance(apart, Estimate)
    assert [alike.value, apart.value] == pytest.approx([0.2, 0.2])
    assert width(alike) < 1e-9  # the error is the same everywhere
    error = 0.2 / math.sqrt(3)  # standard error of the mean of 0, .2, .4
    assert width(apart) / 2 == pytest.approx(1.96 * error, rel=0.25)


def test_nothing_wrong_is_not_certain() -> None:
    """50 pairs in a chain: 25 of them have no contract in common, so the rule of three is that of 25."""
    estimate = chain(50).estimate(lambda y, p, w: accuracy_within(0.2, y, p, w), np.zeros(50), np.zeros(50), SHARE)
    assert isinstance(estimate, Estimate)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 0.05 ** (1 / 25), 1.0))
    assert chain(50).estimate(mae, np.zeros(50), np.zeros(50)) == Estimate(0.0, 0.0, 0.0, 50)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_share_stays_a_share(right: list[bool]) -> None:
    bootstrap = chain(len(right))
    seeds = np.array([right, right[::-1], [True] * len(right)], dtype=float)
    estimate = bootstrap.estimate(mae, np.zeros(len(right)), seeds, SHARE)
    assert isinstance(estimate, Estimate)
    if estimate.low is not None and estimate.high is not None:
        assert 0 <= estimate.low <= estimate.value + 1e-12 and estimate.value - 1e-12 <= estimate.high <= 1


def test_one_pair_has_a_value_and_no_interval() -> None:
    bootstrap = chain(1)
    assert bootstrap.estimate(mae, [0.5], [0.25]) == Estimate(0.25, None, None, 1)
    assert bootstrap.estimate(r2, [0.5], [0.25]) == Undefined(1)
    assert bootstrap.difference(mae, [0.5], [0.25], [0.5]) is None
    assert Undefined(1).to_json() == {"value": None, "low": None, "high": None, "n": 1}


def test_two_pairs_define_too_few_resamples_for_an_interval() -> None:
    estimate = chain(2).estimate(mae, [0.0, 0.0], [0.5, 1.0])
    assert estimate == Estimate(0.75, None, None, 2)


def test_a_constant_truth_or_prediction() -> None:
    bootstrap, a, _ = complete(8)
    varying, constant = a / 10.0, np.full(28, 0.3)
    assert bootstrap.estimate(r2, constant, varying) == Undefined(28)
    assert bootstrap.estimate(pearson, varying, constant) == Undefined(28)
    assert bootstrap.estimate(spearman, constant, varying) == Undefined(28)
    mean = bootstrap.estimate(r2, varying, np.full(28, varying.mean()))
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_an_error(wrong: float) -> None:
    with pytest.raises(DataError, match="not a number"):
        chain(2).estimate(mae, [0.0, 0.0], [0.0, wrong])
    with pytest.raises(DataError, match="not a number"):
        chain(2).estimate(mae, [wrong, 0.0], [0.0, 0.0])


def test_lists_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(DataError, match="no pair"):
        PairBootstrap([], [], seed=1)
    with pytest.raises(ValueError, match="no pairs"):
        PairBootstrap(["a"], [], seed=1)
    with pytest.raises(ValueError, match="2 pairs"):
        chain(2).estimate(mae, [0.0, 0.0], [0.0])
    with pytest.raises(ValueError, match="not paired"):
        chain(2).difference(mae, [0.0, 0.0], np.zeros((2, 2)), np.zeros((3, 2)))


def test_a_better_model() -> None:
    bootstrap, a, b = complete(25)
    rng = np.random.default_rng(0)
    truth = np.sin(a * b)
    worse = truth + rng.normal(0, 0.4, (3, len(a)))
    better = truth + rng.normal(0, 0.3, (3, len(a)))
    result = bootstrap.difference(r2, truth, better, worse)
    assert result is not None
    assert result.difference == pytest.approx(0.07 / truth.var(), rel=0.3)
    assert 0 < result.low < result.difference < result.high
    assert result.p < 0.05
    mirrored = bootstrap.difference(r2, truth, worse, better)
    assert mirrored is not None
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx(
        (-result.difference, -result.high, -result.low)
    )
    assert mirrored.p == pytest.approx(result.p)
    assert bootstrap.difference(mse, truth, better[:1], worse) is not None  # one for all seeds


def test_the_same_model_twice_is_no_difference() -> None:
    bootstrap, a, _ = complete(10)
    result = bootstrap.difference(r2, np.sin(a), np.cos(a), np.cos(a))
    assert result is not None
    assert (result.difference, result.low, result.high, result.p) == (0.0, 0.0, 0.0, 1.0)


def test_p_and_the_interval_say_the_same() -> None:
    rng = np.random.default_rng(3)
    outcomes = set()
    for study in range(60):
        bootstrap, a, _ = complete(12, seed=study)
        noise = rng.normal(0.05, 0.2, len(a))
        result = bootstrap.difference(mae, np.zeros(len(a)), np.full(len(a), 1.0) + noise, np.ones(len(a)))
        assert result is not None
        if abs(result.p - 0.05) > 0.01:  # quantiles interpolate between resamples, p counts them
            assert (result.p < 0.05) == (not result.low <= 0 <= result.high)
        outcomes.add(result.p < 0.05)
    assert outcomes == {True, False}


def test_luck_of_the_seeds_is_no_difference() -> None:
    """One lucky seed of three: better on average, but not reliably."""
    bootstrap, a, _ = complete(25)
    truth = np.sin(1.0 * a)
    theirs = np.stack([truth + 0.3] * 3)
    ours = np.stack([truth, truth + 0.3, truth + 0.31])
    result = bootstrap.difference(mae, truth, ours, theirs)
    assert result is not None
    assert result.difference < 0 and result.low <= 0 <= result.high


def width(estimate: Estimate | Undefined) -> float:
    assert isinstance(estimate, Estimate) and estimate.low is not None and estimate.high is not None
    return estimate.high - estimate.low
