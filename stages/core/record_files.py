"""Files of records: JSON lines, a JSON list, CSV or TSV; and where in them each record stands.

    [{"q": "Who?"},           Line("a.json:1", {"q": "Who?"}, "", 1)
     {"q": "Why?"}]        -> Line("a.json:2", {"q": "Why?"}, "", 2)

What a file is, its content says and not its name (many a `.json` holds lines); only tables are known by their names.
Text is UTF-8, with or without a byte order mark; lines may end in \\r\\n.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import Line, iterate_lines, object_of

TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t"
SPACE = " \t\r\n"


def iterate_records(path: Path) -> Iterator[Line]:
    """Every record in order, broken ones with `error` set.

    Raises DataError where the file is missing, empty, not text, or broken such that nobody knows where records end.
    """
    start = _start(path)
    if path.suffix.lower() in TABLES:
        return _table(path, read_text(path))
    if start == "[":
        return _list(path, read_text(path))
    if start == "{" and (whole := _whole_object(path)) is not None:
        return _wrapped(path, whole)
    return iterate_lines(path)


def read_text(path: Path) -> str:
    """The file's text without a byte order mark. Raises DataError naming the first byte that is not UTF-8."""
    _require_file(path)
    data = path.read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start} (line {line}); convert it, as with "
            f"`iconv -f {_charset(data)} -t UTF-8`"
        ) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: {'a folder; name a file in it' if path.is_dir() else 'no such file'}")


def _charset(data: bytes) -> str:
    return "UTF-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "<its encoding, such as CP1251>"


def _start(path: Path) -> str:
    """The first character that is no space. Raises DataError where there is none."""
    _require_file(path)
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        read_text(path)  # no UTF-8, which it says
    text = head.decode("utf-8-sig", errors="replace").lstrip(SPACE)
    if not text:
        raise DataError(f"{path}: the file is empty")
    return text[0]


def _list(path: Path, text: str) -> Iterator[Line]:
    """Items of a JSON list, decoded one after another, so that each has the line it begins on."""
    decoder, number, line, last = json.JSONDecoder(), 0, 1, 0
    place = _skip(text, text.index("[") + 1)
    while text[place : place + 1] != "]":
        number, line, last = number + 1, line + text.count("\n", last, place), place
        try:
            value, end = decoder.raw_decode(text, place)
            place = _skip(text, end)
            if text[place : place + 1] not in (",", "]"):
                raise ValueError("expected , or ] after this record")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line}: broken JSON in the record that begins here, and nobody knows where the next one "
                f"does: {getattr(error, 'msg', error)}"
            ) from error
        yield Line(f"{path.name}:{line}", *object_of(value), number)
        place = _skip(text, place + 1) if text[place] == "," else place
    if _skip(text, place + 1) < len(text):
        raise DataError(f"{path}:{text.count(chr(10), 0, place) + 1}: the JSON list ends here, but more text follows")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in SPACE:
        place += 1
    return place


def _whole_object(path: Path) -> dict[str, Any] | None:
    """The file as one JSON object; None where it holds lines, as its first one says."""
    first = next(iter(iterate_lines(path)))
    if not first.error and not isinstance(first.value.get("data"), list):
        return None
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError, DataError):
        return None
    return value if isinstance(value, dict) else None


def _wrapped(path: Path, value: dict[str, Any]) -> Iterator[Line]:
    """The records of one object that holds a list, `{"data": [...]}`, or the object itself."""
    records = value.get("data")
    if not isinstance(records, list):
        yield Line(f"{path.name}:1", value, "", 1)
        return
    for number, record in enumerate(records, start=1):
        yield Line(f"{path.name}: record {number}", *object_of(record), number)


def _table(path: Path, text: str) -> Iterator[Line]:
    """CSV with a header line; the delimiter is the one that cuts the header into most columns. Empty cells are absent.

    Raises DataError where two columns have one name, or a quote is never closed.
    """
    header: list[str] = []
    for number, cells, error in _rows(path, text):
        origin = f"{path.name}:{number}"
        if error:
            yield Line(origin, {}, error, number)
        elif not header:
            header = _header(path, number, cells)
        elif len(cells) != len(header):
            yield Line(origin, {}, f"{len(cells)} cells under {len(header)} columns", number)
        else:
            yield Line(origin, {key: cell for key, cell in zip(header, cells, strict=True) if cell}, "", number)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str], str]]:
    """(line it begins on, cells, error) of every row that is not empty."""
    csv.field_size_limit(sys.maxsize)  # of the whole process; the default of 131,072 is less than a long document
    first = text.lstrip(SPACE).partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "unexpected end" in str(error):  # an open quote has swallowed the rest: nobody knows how many rows
                raise DataError(f"{path}:{number}: a quote that opens here is never closed") from error
            yield number, [], f"broken row: {error}"
            continue
        if cells is None:
            return
        if any(cells):
            yield number, cells, ""


def _header(path: Path, number: int, cells: Iterable[str]) -> list[str]:
    """Names of the columns; one may be empty, as that of the row numbers which pandas writes."""
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names):
        raise DataError(f"{path}:{number}: the header needs a name of its own for every column, found {names}")
    return names
