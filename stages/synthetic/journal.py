"""Answers that are paid for, or were computed: kept by the whole request, so that none is asked for twice.

    .cache/requests/<provider>.jsonl      {"key": "<sha256 of the request>", "content": "...", ...} a line

Appended to as answers arrive. A kill loses at most what was in flight; a line that it tore is skipped. One process
at a time asks one provider: two would ask the same twice, and together exceed its rate limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.jsonl import append_jsonl, iterate_lines


class Journal:
    """Finished requests by their key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _read(path)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._rows[key]

    def add(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Keeps key -> answer; on the disk when it returns. What is known already is not written again."""
        new = {key: dict(row) for key, row in rows.items() if key not in self._rows}
        append_jsonl(self.path, ({"key": key, **row} for key, row in new.items()))
        self._rows |= new


@contextmanager
def open_journal(folder: Path, name: str) -> Iterator[Journal]:
    """The journal of a provider; waits while another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another run is asking the same provider: waiting until it ends", file=sys.stderr)
        lock.acquire()
    try:
        yield Journal(folder / f"{name}.jsonl")
    finally:
        lock.release()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    rows = (dict(line.value) for line in iterate_lines(path) if not line.error)
    return {str(row.pop("key")): row for row in rows if "key" in row}
