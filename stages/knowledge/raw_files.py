"""Raw material as it comes: JSONL, JSON, CSV or TSV with the user's own field names, read strictly as UTF-8.

    {path: qa.csv, kind: qa, fields: {question: "question | title", answer: reply, source_document: thread}}

`fields` maps our names to the file's. `a | b` takes the first that is not empty, `a + b` joins both with a space.
A record that cannot be read is an Item with `error`; a file that cannot be read raises DataError.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import iterate_lines
from stages.core.schema import Source
from stages.core.workspace import Workspace

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Item:
    """One record of a raw file. number: of its line (in a JSON list: its place), counted from 1."""

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


def read_text(path: Path) -> str:
    """The file's text without a byte order mark. Raises DataError naming the first byte that is not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start} (line {line}); convert it, as with "
            f"`iconv -f <its encoding> -t UTF-8`"
        ) from error


def iterate_items(path: Path) -> Iterator[Item]:
    """All records of a file, in order; its suffix says how to read it."""
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read {path.suffix or 'a file without suffix'}; known: {', '.join(readers)}")
    text = read_text(path)  # before the first record, so that no half of a file is ever used
    return reader(path, text)


def _jsonl(path: Path, text: str) -> Iterator[Item]:
    for line in iterate_lines(path):
        yield Item(line.origin, int(line.origin.rpartition(":")[2]), line.value, line.error)


def _json(path: Path, text: str) -> Iterator[Item]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON: {error}") from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of objects, or {{"data": [...]}}')
    for number, row in enumerate(rows, start=1):
        origin = f"{path.name}:{number}"
        known = isinstance(row, dict)
        yield Item(origin, number, row if known else {}, "" if known else f"expected an object, found {row!r:.40}")


def _table(path: Path, text: str) -> Iterator[Item]:
    """CSV with a header line; the delimiter is the one that cuts the header into most columns."""
    header_line = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        origin = f"{path.name}:{number}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error):  # an open quote has swallowed the rest: nobody knows how many rows
                raise DataError(f"{path}:{number}: a quote that opens here is never closed") from error
            yield Item(origin, number, {}, f"broken row: {error}")
            continue
        if cells is None:
            return
        if not header:
            header = [name.strip() for name in cells]
        elif cells:
            fits = len(cells) == len(header)
            values = dict(zip(header, cells, strict=True)) if fits else {}
            yield Item(origin, number, values, "" if fits else f"{len(cells)} cells under {len(header)} columns")


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
