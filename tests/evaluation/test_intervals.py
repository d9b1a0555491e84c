from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.evaluation.intervals import (
    Estimate,
    jackknife_interval,
    mean_estimate,
    paired_difference,
    ratio_estimate,
    sign_flip_p,
)


def test_a_mean_and_its_interval() -> None:
    estimate = mean_estimate([1, 0] * 50, range(100), seed=1)
    assert estimate.value == 0.5
    assert estimate.n == 100
    half = 1.984 * math.sqrt(0.25 / 99)  # of a t interval
    assert estimate.low == pytest.approx(0.5 - half, abs=0.01)
    assert estimate.high == pytest.approx(0.5 + half, abs=0.01)


def test_the_seed_decides_everything() -> None:
    values = list(np.random.default_rng(0).random(40))
    assert mean_estimate(values, range(40), seed=3) == mean_estimate(values, range(40), seed=3)
    assert mean_estimate(values, range(40), seed=3) != mean_estimate(values, range(40), seed=4)


def test_questions_about_one_document_count_as_one() -> None:
    """Ten copies of each observation narrow nothing where they belong to the same document."""
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 2
    alone = mean_estimate(values, range(12), seed=1)
    copied = mean_estimate([v for v in values for _ in range(10)], [c for c in range(12) for _ in range(10)], seed=1)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert (alone.n, copied.n) == (12, 120)
    independent = mean_estimate([v for v in values for _ in range(10)], range(120), seed=1)
    assert width(independent) < width(alone) / 2


def test_a_loss_per_token_weighs_by_tokens() -> None:
    estimate = ratio_estimate([10.0, 2.0], [5.0, 1.0], ["a", "b"], seed=1)
    assert estimate.value == 2.0
    assert ratio_estimate([9.0, 1.0], [3.0, 1.0], ["a", "b"], seed=1).value == 2.5


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.05 ** (1 / 30), 1.0), (0.0, 0.0, 1 - 0.05 ** (1 / 30))])
def test_all_right_and_all_wrong_are_not_certain(value: float, low: float, high: float) -> None:
    """The rule of three: 30 of 30 leaves about 3/30, not nothing."""
    estimate = mean_estimate([value] * 60, [n // 2 for n in range(60)], seed=1)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert abs(estimate.high - estimate.low) == pytest.approx(3 / 30, rel=0.06)  # type: ignore[operator]


def test_one_document_says_next_to_nothing() -> None:
    estimate = mean_estimate([1, 0, 1, 0], ["a"] * 4, seed=1)
    assert (estimate.low, estimate.high) == pytest.approx((0.025, 0.975))
    assert ratio_estimate([5.0], [2.0], ["a"], seed=1) == Estimate(2.5, None, None, 1)


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [([], [], "no observation"), ([math.nan], [1.0], "not a number"), ([1.0], [0.0], "without weight")],
)
def test_what_cannot_be_estimated_is_an_error(values: list[float], weights: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ratio_estimate(values, weights, ["a"] * len(values), seed=1)


def test_values_outside_their_bounds_are_an_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        mean_estimate([0.5, 1.5], ["a", "b"], seed=1)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_an_interval_holds_its_value_and_stays_in_bounds(rows: list[tuple[float, int]]) -> None:
    estimate = mean_estimate([value for value, _ in rows], [cluster for _, cluster in rows], seed=1, num_resamples=50)
    assert estimate.low is not None and estimate.high is not None
    assert -1e-9 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    """200 studies of 25 documents with 1-5 questions each, which share their document's difficulty."""
    rng = np.random.default_rng(0)
    covered = 0
    for study in range(200):
        clusters = [c for c in range(25) for _ in range(rng.integers(1, 6))]
        difficulty = rng.beta(2, 1, 25)  # mean 2/3
        values = [float(rng.random() < difficulty[c]) for c in clusters]
        estimate = mean_estimate(values, clusters, seed=study, num_resamples=400)
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 2 / 3 <= estimate.high
    assert 0.91 <= covered / 200 <= 0.99


def test_sign_flips_are_exact_for_few_documents() -> None:
    assert sign_flip_p(np.array([1.0, 1.0, 1.0]), seed=1) == 2 / 8
    assert sign_flip_p(np.array([2.0, 1.0]), seed=1) == 2 / 4
    assert sign_flip_p(np.array([1.0, -1.0]), seed=1) == 1.0
    assert sign_flip_p(np.zeros(5), seed=1) == 1.0


def test_sampled_sign_flips_agree_with_a_normal_approximation_and_are_never_zero() -> None:
    rng = np.random.default_rng(1)
    sums = rng.normal(0.3, 1, 60)
    z = abs(sums.sum()) / math.sqrt(float((sums**2).sum()))
    assert sign_flip_p(sums, seed=1) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert sign_flip_p(np.ones(40), seed=1) == 1 / 10_001


def test_p_values_are_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    small = sum(sign_flip_p(rng.normal(0, 1, 10), seed=study) <= 0.1 for study in range(300))
    assert 0.06 <= small / 300 <= 0.14


def test_a_paired_difference() -> None:
    a, b = [1.0] * 6 + [0.0] * 6, [0.0] * 12
    result = paired_difference(a, b, range(12), seed=1)
    assert result.difference == 0.5
    assert 0 < result.low < 0.5 < result.high < 1
    assert result.p == 2 / 2**6  # of the six that differ, all or none turned round
    mirrored = paired_difference(b, a, range(12), seed=1)
    assert (mirrored.difference, mirrored.p) == (-result.difference, result.p)


def test_pairing_tells_more_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(200)
    b = (hard < 0.5).astype(float)
    a = (hard < 0.56).astype(float)
    result = paired_difference(list(a), list(b), range(200), seed=1)
    assert result.low > 0
    assert mean_estimate(list(b), range(200), seed=1).high > mean_estimate(list(a), range(200), seed=1).low  # type: ignore[operator]


def test_no_difference_at_all_keeps_a_width() -> None:
    result = paired_difference([1.0] * 10, [1.0] * 10, range(10), seed=1)
    assert (result.difference, result.p) == (0.0, 1.0)
    assert result.low == -result.high < 0


def test_unpaired_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_difference([1.0], [1.0, 0.0], ["a"], seed=1)


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    left_out = [(values.sum() - value) / 3 for value in values]
    low, high = jackknife_interval(values.mean(), left_out)
    half = 3.182446 * values.std(ddof=1) / 2
    assert (low, high) == pytest.approx((3.5 - half, 3.5 + half), abs=1e-4)


def test_json_has_plain_rounded_numbers() -> None:
    assert Estimate(1 / 3, None, 2.0, 4).to_json() == {"value": 0.333333, "low": None, "high": 2.0, "n": 4}


def width(estimate: Estimate) -> float:
    assert estimate.low is not None and estimate.high is not None
    return estimate.high - estimate.low
