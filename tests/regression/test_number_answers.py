"""Numbers to JSON and back: one text a value, and a reason for everything that is no answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.regression.answer import (
    format_answer,
    format_value,
    parse_answer,
    show_neighbour,
    show_pair,
    value_texts,
)
from stages.regression.task import PairPrompt, RegressionTask, SqlSource

PROMPT = PairPrompt("s", "{neighbours}", "A: {a} B: {b} = {value}", "A: {a}\nB: {b}")


def make(**changes: Any) -> RegressionTask:
    values: dict[str, Any] = {"name": "t", "raw": "r", "json_field": "correlation", "low": -1.0, "high": 1.0}
    values |= {"decimals": 2, "tolerance": 0.2, "prompt": PROMPT, "source": "sql", "sql": SqlSource(url="sqlite:///x")}
    return RegressionTask(**{**values, **changes})


CORRELATION = make()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.42, "-0.42"),
        (0.5, "0.50"),
        (1, "1.00"),
        (-1.0, "-1.00"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (-0.004, "0.00"),
        (0.125, "0.12"),
        (0.135, "0.14"),
        (-0.425, "-0.42"),
        (0.995, "1.00"),
        (1e-9, "0.00"),
    ],
)
def test_a_value_has_one_text(value: float, text: str) -> None:
    assert format_value(CORRELATION, value) == text
    assert format_answer(CORRELATION, value) == f'{{"correlation": {text}}}'


@pytest.mark.parametrize("value", [1.001, -2, float("nan"), float("inf")])
def test_a_value_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not between"):
        format_value(CORRELATION, value)


def test_other_tasks_write_other_numbers() -> None:
    assert format_answer(make(json_field="relatedness", low=1.0, high=5.0, decimals=1), 3.65) == '{"relatedness": 3.6}'
    assert format_answer(make(json_field="years", low=0.0, high=120.0, decimals=0), 41.5) == '{"years": 42}'


def test_every_number_that_can_be_written() -> None:
    texts = value_texts(CORRELATION)
    assert (texts[0], texts[100], texts[-1], len(texts)) == ("-1.00", "0.00", "1.00", 201)
    assert texts == sorted(texts, key=float)
    assert value_texts(make(low=1.0, high=2.0, decimals=1)) == [f"1.{n}" for n in range(10)] + ["2.0"]


@given(st.floats(-1, 1))
def test_what_is_written_is_read_back(value: float) -> None:
    parsed = parse_answer(CORRELATION, format_answer(CORRELATION, value))
    assert parsed.reason == ""
    assert parsed.value is not None
    assert abs(parsed.value - value) <= 0.005 + 1e-12
    assert format_value(CORRELATION, parsed.value) in set(value_texts(CORRELATION))


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ('{"correlation": -0.42}', -0.42, ""),
        (' {"correlation":1}\n', 1.0, ""),
        ('{"correlation": -0.00}', 0.0, ""),
        ('{"correlation": 0.3, "why": "alike"}', 0.3, ""),
        ('Sure! {"correlation": 0.3}', 0.3, "extra_text"),
        ('{"correlation": 0.3} I hope', 0.3, "extra_text"),
        ('{maybe} {"x": 1} {"correlation": 0.3}', 0.3, "extra_text"),
        ("0.3", None, "no_json"),
        ("", None, "no_json"),
        ('{"correlation": 0.3', None, "broken_json"),
        ('{"correlation": .3}', None, "broken_json"),
        ('{"Correlation": 0.3}', None, "no_field"),
        ('[{"x": {"correlation": 0.3}}]', None, "no_field"),
        ('{"correlation": "0.3"}', None, "not_a_number"),
        ('{"correlation": true}', None, "not_a_number"),
        ('{"correlation": null}', None, "not_a_number"),
        ('{"correlation": NaN}', None, "not_a_number"),
        ('{"correlation": 1e999}', None, "not_a_number"),
        ('{"correlation": ' + "9" * 5000 + "}", None, "not_a_number"),
        ('{"correlation": 1.01}', None, "out_of_range"),
        ('{"a":' * 3000, None, "broken_json"),
    ],
)
def test_reading_an_answer(text: str, value: float | None, reason: str) -> None:
    parsed = parse_answer(CORRELATION, text)
    assert (parsed.value, parsed.reason) == (value, reason)


@given(st.text())
def test_reading_never_raises(text: str) -> None:
    parsed = parse_answer(CORRELATION, text)
    assert parsed.value is not None or parsed.reason


def test_a_rationale_comes_after_the_number() -> None:
    task = make(rationale_field="why")
    answer = format_answer(task, 0.5, 'both "rise"')
    assert answer == '{"correlation": 0.50, "why": "both \\"rise\\""}'
    assert parse_answer(task, answer).value == 0.5
    assert format_answer(task, 0.5) == '{"correlation": 0.50}'
    assert format_answer(CORRELATION, 0.5, "unused") == '{"correlation": 0.50}'


def test_braces_in_texts_mean_nothing() -> None:
    assert show_pair(CORRELATION, "{b} {value}", "{a}") == "A: {b} {value}\nB: {a}"
    assert show_neighbour(CORRELATION, "x", "{0}", -0.126) == "A: x B: {0} = -0.13"
