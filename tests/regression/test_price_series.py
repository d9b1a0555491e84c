"""Rows to series: every kind of time and price, flaws counted, nothing lost."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.regression.price_series import PriceLedger, microseconds, number_of, read_series

DAY = 86_400 * 1_000_000


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("1970-01-02", DAY),
        (" 1970-01-02T00:00:00Z ", DAY),
        ("1970-01-02T02:00:00+02:00", DAY),
        ("1970-01-02 00:00:00.000001", DAY + 1),
        (date(1970, 1, 2), DAY),
        (datetime(1970, 1, 2), DAY),
        (datetime(1970, 1, 2, 3, tzinfo=timezone(timedelta(hours=3))), DAY),
        (datetime(1969, 12, 31, tzinfo=UTC), -DAY),
        (86_400, DAY),
        (0.5, 500_000),
    ],
)
def test_times(value: Any, moment: int) -> None:
    assert microseconds(value) == moment


@pytest.mark.parametrize("value", ["", "soon", "2031-02-30", None, True, b"2031-01-01", math.nan, math.inf])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises((ValueError, OverflowError)):
        microseconds(value)


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_are_exact(moment: datetime) -> None:
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(moment)) == moment


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (Decimal("0.25"), 0.25),
        ("0.5", 0.5),
        (None, math.nan),
        ("n/a", math.nan),
        (True, math.nan),
    ],
)
def test_numbers(value: Any, number: float) -> None:
    assert number_of(value) == number or (math.isnan(number) and math.isnan(number_of(value)))


def test_series_and_counts() -> None:
    rows = [
        ("a", "2031-01-02", 0.2),
        ("a", "2031-01-01", 0.1),  # order within a contract does not matter
        ("a", "2031-01-02", 0.2),  # again
        ("a", "2031-01-03", 0.3),
        ("a", "2031-01-03", 0.4),  # which of them?
        ("a", "2031-01-04", None),
        ("a", "tomorrow", 0.5),
        (7, "2031-01-01", 0.7),  # an id that is a number
        ("x", "2031-01-01", 0.7),
        ("x", "2031-01-02", 0.7),
    ]
    ledger = PriceLedger()
    found = dict(read_series(rows, {"a", "7"}, ledger))
    assert found["a"].price.tolist() == [0.1, 0.2]
    assert (found["a"].at[1] - found["a"].at[0]) == DAY
    assert found["7"].price.tolist() == [0.7]
    assert ledger.metrics() == {
        "num_read": 10,
        "num_kept": 3,
        "num_rejected": 7,
        "rejected": {
            "broken_time": 1,
            "conflicting_price": 2,
            "duplicate_time": 1,
            "not_a_number": 1,
            "unknown_contract": 2,
        },
    }
    assert {"origin": "prices of x", "reason": "unknown_contract", "detail": "2 rows"} in list(ledger.rows())


def test_a_contract_whose_rows_are_all_bad_has_an_empty_series() -> None:
    ledger = PriceLedger()
    [(identifier, series)] = read_series([("a", "2031-01-01", None)], {"a"}, ledger)
    assert (identifier, len(series.at)) == ("a", 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from([0.1, 0.2, None, math.inf]))))
def test_nothing_is_lost(rows: list[tuple[str, int, float | None]]) -> None:
    ledger = PriceLedger()
    rows = sorted(rows, key=lambda row: row[0])
    num_kept = sum(len(series.at) for _, series in read_series(rows, {"a", "b"}, ledger))
    assert ledger.metrics()["num_read"] == len(rows)
    assert ledger.metrics()["num_kept"] == num_kept
