"""Rows of prices, ordered by contract, into one series a contract; only the series are held in memory.

A row is (contract_id, at, price). What cannot be used is counted by reason, and said once a contract:
unknown_contract, broken_time, not_a_number, duplicate_time (same price), conflicting_price (another price).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.regression.correlation import Series

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = 1_000_000


@dataclass
class PriceLedger:
    """read = kept + rejected, for rows far too many to be listed one by one."""

    num_read: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    by_contract: Counter[tuple[str, str]] = field(default_factory=Counter)  # (contract, reason)

    def reject(self, contract_id: str, reason: str, count: int = 1) -> None:
        self.rejected[reason] += count
        self.by_contract[contract_id, reason] += count

    def metrics(self) -> dict[str, Any]:
        """The counts, as a Ledger gives them."""
        num_rejected = self.rejected.total()
        return {
            "num_read": self.num_read,
            "num_kept": self.num_read - num_rejected,
            "num_rejected": num_rejected,
            "rejected": dict(sorted(self.rejected.items())),
        }

    def rows(self) -> Iterator[dict[str, str]]:
        """One row a contract and reason, as a Ledger's rejections."""
        for (contract_id, reason), count in sorted(self.by_contract.items()):
            yield {"origin": f"prices of {contract_id}", "reason": reason, "detail": f"{count} rows"}


def read_series(
    rows: Iterable[tuple[Any, Any, Any]], known: set[str], ledger: PriceLedger
) -> Iterator[tuple[str, Series]]:
    """(contract id, its series) in the rows' order, which must keep a contract's rows together."""
    for contract_id, group in groupby(rows, key=lambda row: str(row[0])):
        if contract_id not in known:
            count = sum(1 for _ in group)
            ledger.num_read += count
            ledger.reject(contract_id, "unknown_contract", count)
            continue
        at, price = array("q"), array("d")
        for _, raw_at, raw_price in group:
            ledger.num_read += 1
            try:
                moment = microseconds(raw_at)
            except (ValueError, OverflowError):
                ledger.reject(contract_id, "broken_time")
                continue
            number = number_of(raw_price)
            if math.isfinite(number):
                at.append(moment)
                price.append(number)
            else:
                ledger.reject(contract_id, "not_a_number")
        yield contract_id, _unique(contract_id, np.array(at, np.int64), np.array(price, np.float64), ledger)


def _unique(contract_id: str, at: npt.NDArray[np.int64], price: npt.NDArray[np.float64], ledger: PriceLedger) -> Series:
    """One price a point in time: equal ones are folded, points with different ones are left out."""
    order = np.lexsort((price, at))
    at, price = at[order], price[order]
    unique, start, count = np.unique(at, return_index=True, return_counts=True)
    last = start + count - 1
    agrees = price[start] == price[last] if len(at) else np.zeros(0, bool)
    if duplicates := int((count[agrees] - 1).sum()):
        ledger.reject(contract_id, "duplicate_time", duplicates)
    if conflicts := int(count[~agrees].sum()):
        ledger.reject(contract_id, "conflicting_price", conflicts)
    return Series(unique[agrees], price[start[agrees]])


def number_of(value: Any) -> float:
    """A float of what a driver gives (float, int, Decimal, text); NaN for what is no number."""
    try:
        return math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def microseconds(value: Any) -> int:
    """Microseconds since 1970 in UTC of a datetime, date, ISO text, or number of seconds; without zone: UTC.

    Raises ValueError or OverflowError.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value * MICROSECOND)  # NaN and infinities raise
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is no point in time")
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    since = aware - EPOCH
    return (since.days * 86_400 + since.seconds) * MICROSECOND + since.microseconds
