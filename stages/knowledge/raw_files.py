"""Raw material as it comes: JSONL, JSON, CSV or TSV with the user's own field names, read strictly as UTF-8.

    {path: qa.csv, kind: qa, fields: {question: "question | title", answer: reply, source_document: thread}}

`fields` maps our names to the file's. `a | b` takes the first that is not empty, `a + b` joins both with a space.
A record that cannot be read is an Item with `error`; a file that cannot be read raises DataError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.core.record_files import TABLES, iterate_records, read_text
from stages.core.schema import Source
from stages.core.workspace import Workspace

SUFFIXES = (".jsonl", ".ndjson", ".json", *TABLES)


@dataclass(frozen=True)
class Item:
    """One record of a raw file. number: as in core.jsonl.Line; ids are made of it."""

    origin: str
    number: int
    values: dict[str, Any]
    error: str = ""


class WrongTypeError(Exception):
    """A field holds what it must not hold; the record is rejected."""


def raw_path(workspace: Workspace, raw_dir: str, path: str) -> Path:
    """The raw file, which must be there and not be empty. Raises DataError."""
    try:
        found = workspace.read(Path(raw_dir) / path)
    except DataError as error:
        raise DataError(f"{raw_dir}/{path}: no such raw file; see domain.raw_dir and the domain's sources") from error
    if found.stat().st_size == 0:
        raise DataError(f"{raw_dir}/{path}: the file is empty")
    return found


def iterate_items(path: Path) -> Iterator[Item]:
    """All records of a file, in order."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; known: {', '.join(SUFFIXES)}")
    read_text(path)  # before the first record, so that no half of a file is ever used
    return (Item(line.origin, line.number, line.value, line.error) for line in iterate_records(path))


def check_fields(source: Source, needed: tuple[str, ...], optional: tuple[str, ...], key: str) -> None:
    """Raises ConfigError where a source maps a field that we do not know, or leaves out a needed one."""
    for name in source.fields:
        if name not in needed + optional:
            raise ConfigError(f"{key} ({source.path}): unknown field {name}; known: {', '.join(needed + optional)}")
    for name in needed:
        if name not in source.fields:
            raise ConfigError(f"{key} ({source.path}): fields.{name} is missing: which field holds the {name}?")


def text_of(values: Mapping[str, Any], source: Source, name: str) -> str:
    """The text of our field `name`; "" where the record has none. Numbers become text. Raises WrongTypeError."""
    expression = source.fields.get(name, "")
    if not expression:
        return ""
    if expression in values:
        return _plain(values[expression], expression)
    for alternative in expression.split(" | "):
        parts = [_plain(values.get(field.strip()), field.strip()) for field in alternative.split(" + ")]
        if joined := " ".join(part for part in parts if part.strip()):
            return joined
    return ""


def list_of(values: Mapping[str, Any], source: Source, name: str) -> list[str]:
    """The texts of our field `name`: a list of the file's, or a single text. Raises WrongTypeError."""
    field = source.fields.get(name, "")
    value = values.get(field)
    items = value if isinstance(value, list) else [value]
    return [text for item in items if (text := _plain(item, field)).strip()]


def _plain(value: Any, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise WrongTypeError(f"{field} holds {type(value).__name__}, not text")
