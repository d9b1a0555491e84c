"""What the model is shown of a pair, and what it writes: {"correlation": -0.42}.

A value is written with the task's decimals, so each has exactly one text; a minus sign only below zero.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from stages.regression.task import RegressionTask

EXTRA_TEXT = "extra_text"


@dataclass(frozen=True)
class ParsedAnswer:
    """`value` is None where there is none; `reason` says why, or that text stood around the JSON; "" when exact."""

    value: float | None
    reason: str = ""


def show_pair(task: RegressionTask, a: str, b: str) -> str:
    """The pair as the user's turn of the prompt."""
    return task.prompt.pair.format(a=a, b=b)  # braces inside a and b mean nothing to str.format


def show_neighbour(task: RegressionTask, a: str, b: str, value: float) -> str:
    """A known pair with its value, as it stands in the system message."""
    return task.prompt.neighbour.format(a=a, b=b, value=format_value(task, value))


def format_value(task: RegressionTask, value: float) -> str:
    """The number's text, rounded half to even: -0.425 -> -0.42. Raises ValueError outside the task's range."""
    if not task.low <= value <= task.high:  # also true of NaN
        raise ValueError(f"{value} is not between {task.low} and {task.high}")
    return _text(Decimal(repr(float(value))).quantize(_unit(task), rounding=ROUND_HALF_EVEN))


def value_texts(task: RegressionTask) -> list[str]:
    """Every number that can be written, from low to high: "-1.00", "-0.99", ... "1.00"."""
    unit = _unit(task)
    first, last = (int(Decimal(repr(float(bound))) / unit) for bound in (task.low, task.high))
    return [_text(unit * step) for step in range(first, last + 1)]


def _unit(task: RegressionTask) -> Decimal:
    return Decimal(1).scaleb(-task.decimals)


def _text(number: Decimal) -> str:
    return f"{abs(number) if number == 0 else number:f}"  # no -0.00


def format_answer(task: RegressionTask, value: float, rationale: str = "") -> str:
    """The JSON to write. The number comes first, so that a rationale cannot change how it is read."""
    rest = f", {_quote(task.rationale_field)}: {_quote(rationale)}" if task.rationale_field and rationale else ""
    return f"{{{_quote(task.json_field)}: {format_value(task, value)}{rest}}}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def parse_answer(task: RegressionTask, text: str) -> ParsedAnswer:
    """Reads an answer; never raises.

    Reasons without a value: no_json, broken_json, no_field, not_a_number, out_of_range. With a value: extra_text
    (something stands before or after the JSON object).
    """
    start, end, found = _first_object(text, task.json_field)
    if found is None:
        return ParsedAnswer(None, "broken_json" if "{" in text else "no_json")
    if task.json_field not in found:
        return ParsedAnswer(None, "no_field")
    value = found[task.json_field]
    if not isinstance(value, float) or not math.isfinite(value):
        return ParsedAnswer(None, "not_a_number")
    if not task.low <= value <= task.high:
        return ParsedAnswer(None, "out_of_range")
    around = text[:start].strip() or text[end:].strip()
    return ParsedAnswer(value + 0.0, EXTRA_TEXT if around else "")  # + 0.0: no negative zero


def _first_object(text: str, key: str) -> tuple[int, int, dict[str, Any] | None]:
    """(start, end, object) of the first JSON object with this key, else of the first without, else (0, 0, None)."""
    decoder = json.JSONDecoder(parse_int=float)
    best: tuple[int, int, dict[str, Any] | None] = (0, 0, None)
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if key in found:
                return start, end, found
            best = best if best[2] is not None else (start, end, found)
        start = text.find("{", end)
    return best
