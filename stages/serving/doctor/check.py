"""One line of the doctor's report.

`ok`, a `note` (worth knowing, nothing is broken), or a `problem` (something needed is missing); notes and problems
say the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.serving.machine import GIB

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """`fix` is the way out; empty where all is well."""

    group: str
    name: str
    status: Status
    found: str
    fix: str = ""


def size_text(num_bytes: int) -> str:
    """`1.5 GiB`, `20 MiB`."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.0f} MiB"


def count_text(count: int) -> str:
    """`8.03 B`, `0.73 M`."""
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"
