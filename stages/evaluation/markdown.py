"""Markdown that nothing untrusted can break: tables, quotations, numbers with their intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stages.evaluation.intervals import Difference, Estimate

MAX_CHARS = 600
SPECIAL = re.compile(r"[\\`*_<>\[\]|&~$]")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column to the left, numbers to the right."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def estimate(number: Estimate, digits: int = 2) -> str:
    """`0.94 [0.89, 0.98]`, or `3.20 (no interval)`."""
    if number.low is None or number.high is None:
        return f"{number.value:.{digits}f} (no interval)"
    return f"{number.value:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def difference(number: Difference, digits: int = 2) -> str:
    """`+0.55 [+0.45, +0.65], p = 0.0001`, and what follows where the interval holds 0."""
    p = "p < 0.001" if number.p < 0.001 else f"p = {number.p:.3f}"
    numbers = f"{number.difference:+.{digits}f} [{number.low:+.{digits}f}, {number.high:+.{digits}f}], {p}"
    return f"{numbers}: **no difference shown**, the interval holds 0" if number.low <= 0 <= number.high else numbers


def inline(text: str) -> str:
    """Text of a model or a document in one line of a table or list, as it is and without effect."""
    text = " ".join(text.split())
    text = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
    text = SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)
    return text or "*(empty)*"
