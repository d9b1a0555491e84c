"""Correlations of aligned series: exact values, NumPy's corrcoef, and reasons where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.regression.correlation import Series, correlate


def series(points: dict[int, float]) -> Series:
    at = sorted(points)
    return Series(np.array(at, np.int64), np.array([points[t] for t in at], np.float64))


def of(*prices: float) -> Series:
    return series(dict(enumerate(prices)))


def test_exact_values() -> None:
    assert correlate(of(1, 2, 3), of(2, 4, 6), changes=False, min_shared_points=3) == (pytest.approx(1.0), "")
    assert correlate(of(1, 2, 3), of(3, 2, 1), changes=False, min_shared_points=3) == (pytest.approx(-1.0), "")
    assert correlate(of(1, 2, 3, 4), of(1, -1, -1, 1), changes=False, min_shared_points=3)[0] == pytest.approx(0.0)
    # changes 1, -1, 2 and 1, 0, 1: means 2/3 and 2/3, covariance 5/3, variances 14/3 and 2/3
    value, _ = correlate(of(0, 1, 0, 2), of(0, 1, 1, 2), changes=True, min_shared_points=3)
    assert value == pytest.approx((5 / 3) / np.sqrt(14 / 3 * 2 / 3))


def test_only_shared_points_count_and_changes_span_gaps() -> None:
    a = series({1: 1.0, 2: 9.0, 3: 2.0, 5: 5.0, 6: 4.0})
    b = series({1: 10.0, 3: 30.0, 4: 99.0, 5: 40.0, 6: 41.0})
    value, _ = correlate(a, b, changes=True, min_shared_points=4)
    assert value == pytest.approx(np.corrcoef([1, 3, -1], [20, 10, 1])[0, 1])


@pytest.mark.parametrize(
    ("a", "b", "changes", "reason"),
    [
        (of(1, 2, 3), series({7: 1.0, 8: 2.0, 9: 3.0}), False, "no_shared_points"),
        (of(1, 2, 3), series({1: 1.0, 2: 2.0, 9: 3.0}), False, "too_few_shared_points"),
        (of(1, 2, 3), of(5, 5, 5), False, "constant_series"),
        (of(0, 0, 0), of(1, 2, 3), False, "constant_series"),
        (of(1, 2, 3), of(0.1, 0.2, 0.30000000000000004), True, "constant_series"),  # a straight line has no changes
        (series({0: 1.0, 1: 1.0, 2: 1.0, 9: 2.0}), of(1, 2, 4), False, "constant_series"),  # where they overlap
    ],
)
def test_no_correlation_has_a_reason(a: Series, b: Series, changes: bool, reason: str) -> None:
    value, found = correlate(a, b, changes, min_shared_points=3)
    assert np.isnan(value)
    assert found == reason


PRICE = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
PRICES = st.dictionaries(st.integers(0, 30), PRICE, min_size=3)
SHARED = st.dictionaries(st.integers(0, 30), st.tuples(PRICE, PRICE), min_size=3)


@given(PRICES, PRICES, SHARED, st.booleans())
def test_equals_numpy_on_the_shared_points(
    a: dict[int, float], b: dict[int, float], both: dict[int, tuple[float, float]], changes: bool
) -> None:
    a, b = ({**own, **{t: pair[n] for t, pair in both.items()}} for n, own in enumerate((a, b)))
    shared = sorted(set(a) & set(b))
    x, y = np.array([a[t] for t in shared]), np.array([b[t] for t in shared])
    x, y = (np.diff(x), np.diff(y)) if changes else (x, y)
    value, reason = correlate(series(a), series(b), changes, 3)
    if reason:
        assert np.ptp(x) < 1e-6 or np.ptp(y) < 1e-6
        return
    assume(min(np.ptp(x) / np.abs(x).max(), np.ptp(y) / np.abs(y).max()) > 1e-6)  # beyond, rounding decides in both
    assert value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert -1 <= value <= 1


@given(PRICES, PRICES, st.booleans())
def test_is_symmetric(a: dict[int, float], b: dict[int, float], changes: bool) -> None:
    one, other = (correlate(*pair, changes, 3) for pair in ((series(a), series(b)), (series(b), series(a))))
    assert one[1] == other[1]
    assert np.isnan(one[0]) or one[0] == pytest.approx(other[0], abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_tiny_and_huge_prices(scale: float) -> None:
    value, reason = correlate(of(1 * scale, 2 * scale, 4 * scale), of(1, 2, 3), changes=False, min_shared_points=3)
    assert (value, reason) == (pytest.approx(np.corrcoef([1, 2, 4], [1, 2, 3])[0, 1]), "")
