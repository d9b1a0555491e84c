"""Pairs of texts with a value, and what makes a pair unusable.

{"id": "c-0017--c-0102", "a_id": "c-0017", "b_id": "c-0102", "a": "The island Rinwin wins. ...", "b": "...",
 "value": -0.41, "category": "harbor/storm", "true_value": -0.43, "rationale": "", "part": "", "origin": "..."}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Self

from stages.core.errors import DataError
from stages.core.ledger import Ledger
from stages.regression.answer import format_value
from stages.regression.task import RegressionTask

VALUE_DECIMALS = 6  # of stored values: far finer than any answer, coarser than what differs between machines


@dataclass(frozen=True)
class Pair:
    """a, b: the texts; value: the number to predict.

    category: of both, where the source has one. true_value: the value without sampling noise (demo only).
    part: train, validation or test where the source has a split of its own. origin: file:line or table.
    """

    id: str
    a_id: str
    b_id: str
    a: str
    b: str
    value: float
    category: str = ""
    true_value: float | None = None
    rationale: str = ""
    part: str = ""
    origin: str = ""

    def to_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Raises DataError naming the pair whose keys do not fit."""
        if unknown := set(row) - {f.name for f in fields(cls)}:
            raise DataError(f"pair {row.get('id', '?')}: unknown keys {sorted(unknown)}")
        try:
            return cls(**row)
        except TypeError as error:
            raise DataError(f"pair {row.get('id', '?')}: {error}") from error

    @property
    def key(self) -> tuple[str, str]:
        """The same for (a, b) and (b, a), and for every pair of the same two texts."""
        first, second = sorted((text_key(self.a), text_key(self.b)))
        return first, second


@lru_cache(maxsize=65536)  # a text stands in many pairs
def text_key(text: str) -> str:
    """A short hash of a text, blind to case and white space."""
    return hashlib.sha256(plain(text).casefold().encode()).hexdigest()[:16]


def plain(text: str) -> str:
    """White space made single blanks, none at the ends."""
    return " ".join(text.split())


def admit(pairs: Iterable[Pair], task: RegressionTask, ledger: Ledger, conflicting_values: str) -> list[Pair]:
    """The usable pairs, sorted by id; the others go to the ledger, which has counted every pair as read.

    Reasons: empty_text, pair_with_itself, not_a_number, out_of_range, duplicate (the same texts in either order, and
    a value that is written alike), conflicting_values (written differently: `reject` drops all of them, `first` keeps
    the first), repeated_id (other texts under the ids of an earlier pair).
    """
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if reason := flaw(pair, task):
            ledger.reject(pair.origin, reason, f"{pair.id}: {pair.value}")
        else:
            groups.setdefault(pair.key, []).append(pair)
    kept: dict[str, Pair] = {}
    for group in groups.values():
        pair_ = _one_of(group, task, ledger, conflicting_values)
        if pair_ and pair_.id in kept:
            ledger.reject(pair_.origin, "repeated_id", f"{pair_.id}: other texts under the same ids")
        elif pair_:
            kept[pair_.id] = pair_
    return [kept[identifier] for identifier in sorted(kept)]


def flaw(pair: Pair, task: RegressionTask) -> str:
    """Why a pair cannot be used; "" where it can."""
    if not plain(pair.a) or not plain(pair.b):
        return "empty_text"
    if pair.a_id == pair.b_id or text_key(pair.a) == text_key(pair.b):
        return "pair_with_itself"
    if pair.value != pair.value:
        return "not_a_number"
    return "" if task.low <= pair.value <= task.high else "out_of_range"


def _one_of(group: list[Pair], task: RegressionTask, ledger: Ledger, conflicting_values: str) -> Pair | None:
    """The one pair that stands for all pairs of the same texts."""
    first, *others = group
    written = {format_value(task, pair.value) for pair in group}
    if len(written) > 1 and conflicting_values == "reject":
        for pair in group:
            ledger.reject(pair.origin, "conflicting_values", f"{pair.id}: {', '.join(sorted(written))}")
        return None
    for pair in others:
        same = format_value(task, pair.value) == format_value(task, first.value)
        ledger.reject(pair.origin, "duplicate" if same else "conflicting_values", f"{pair.id}: kept {first.id}")
    return first


def text_pair(texts: Mapping[str, str], value: float, origin: str) -> Pair:
    """A pair of plain texts; a text without an id of its own is known by its hash.

    texts: a and b; a_id, b_id, category and rationale where there are any.
    """
    a, b = texts.get("a", ""), texts.get("b", "")
    a_id = texts.get("a_id") or f"t-{text_key(a)}"
    b_id = texts.get("b_id") or f"t-{text_key(b)}"
    return Pair(
        id=f"{a_id}--{b_id}",
        a_id=a_id,
        b_id=b_id,
        a=a,
        b=b,
        value=round(value, VALUE_DECIMALS),
        category=texts.get("category", ""),
        rationale=texts.get("rationale", ""),
        origin=origin,
    )
