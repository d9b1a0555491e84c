"""The one reader of JSON lines, and their writers: of whole files, and of files that grow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.core.errors import DataError


@dataclass(frozen=True)
class Line:
    """One record of a file: a JSON object, or the reason why it is none.

    origin: `file:line`, where it begins. number: what no other record of the file has, counted from 1: its line, or its
    place where lines do not tell records apart.
    """

    origin: str
    value: dict[str, Any]
    error: str = ""
    number: int = 0


def iterate_lines(path: Path) -> Iterator[Line]:
    """Yields every non-blank line of a file, broken ones with `error` set; never raises for a line.

    Lines are split at \\n only: U+2028 and the like may stand inside JSON strings.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                value, error = _parse(raw, first=number == 1)
                yield Line(f"{path.name}:{number}", value, error, number)


def _parse(raw: bytes, first: bool) -> tuple[dict[str, Any], str]:
    try:
        value = json.loads(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 at byte {error.start}"
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError that is no JSONDecodeError
        return {}, f"broken JSON: {error}"
    return object_of(value)


def object_of(value: Any) -> tuple[dict[str, Any], str]:
    """(the JSON object, ""), or ({}, the reason why it is none)."""
    return (value, "") if isinstance(value, dict) else ({}, f"expected a JSON object, found {type(value).__name__}")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All objects of a file that a stage of ours wrote; a broken line raises DataError with file:line."""
    rows = []
    for line in iterate_lines(path):
        if line.error:
            raise DataError(f"{path.parent}/{line.origin}: {line.error}")
        rows.append(line.value)
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes whole or not at all; keys keep their order, so equal rows give equal bytes."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds lines in one write that is on the disk when this returns; a line that a kill cut off is ended first."""
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    if not lines:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)
        os.fsync(file.fileno())
