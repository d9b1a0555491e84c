"""Records read, kept and rejected by each data stage, and whether the split of the data is still the same.

Reads the ledgers in reports/<name>/<stage>/metrics.json: num_read, num_kept, num_rejected, rejected (by reason), and
every key that ends in splits_sha256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.config import flat

COUNTS = ("num_read", "num_kept", "num_rejected")


@dataclass(frozen=True)
class DataChange:
    """Of one stage: the three counts, and the reasons whose counts differ. None where there was no such stage."""

    stage: str
    before: dict[str, int] | None
    after: dict[str, int] | None
    reasons: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Split:
    """The hash of who is in which part; equal hashes mean that numbers are over the same questions."""

    name: str
    before: str | None
    after: str | None

    @property
    def changed(self) -> bool:
        return self.before != self.after


def data_diff(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> DataChange | None:
    """None where the stage counts no records, or counts the same."""
    old, new = _counts(before), _counts(after)
    reasons = dict(_reasons(before.get("rejected") or {}, after.get("rejected") or {}))
    return DataChange(stage, old, new, reasons) if old != new or reasons else None


def splits(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Split]:
    """Each split that either side has."""
    old, new = flat(before), flat(after)
    for key in dict.fromkeys([*new, *old]):
        if key.endswith("splits_sha256"):
            yield Split(f"{stage}.{key}", old.get(key), new.get(key))


def _counts(metrics: Mapping[str, Any]) -> dict[str, int] | None:
    return {key: int(metrics[key]) for key in COUNTS} if all(key in metrics for key in COUNTS) else None


def _reasons(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, int]]]:
    for reason in sorted({*before, *after}):
        counts = before.get(reason, 0), after.get(reason, 0)
        if counts[0] != counts[1]:
            yield reason, counts
