"""The one reader and the one writer of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.core.errors import DataError


@dataclass(frozen=True)
class Line:
    """One line of a JSONL file: a JSON object, or the reason why it is none."""

    origin: str  # file:line
    value: dict[str, Any]
    error: str = ""


def iterate_lines(path: Path) -> Iterator[Line]:
    """Yields every non-blank line of a file, broken ones with `error` set; never raises for a line.

    Lines are split at \\n only: U+2028 and the like may stand inside JSON strings.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield _parse(f"{path.name}:{number}", raw, first=number == 1)


def _parse(origin: str, raw: bytes, first: bool) -> Line:
    try:
        value = json.loads(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return Line(origin, {}, f"not UTF-8 at byte {error.start}")
    except (json.JSONDecodeError, RecursionError) as error:
        return Line(origin, {}, f"broken JSON: {error}")
    if not isinstance(value, dict):
        return Line(origin, {}, f"expected a JSON object, found {type(value).__name__}")
    return Line(origin, value)


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
