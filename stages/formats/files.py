"""The records of a file before anybody knows their format, and files written from records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.core.jsonl import Line, object_of, write_jsonl
from stages.core.record_files import TABLES, iterate_records


def read_rows(path: Path) -> list[Line]:
    """Every record, broken ones with `error` set, SQuAD's articles as one record a question.

    Raises DataError as `iterate_records` does.
    """
    rows = (row for line in iterate_records(path) for row in _questions(line))
    return [replace(row, error=row.error or _unwritable(row.value), number=at) for at, row in _numbered(rows)]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a whole file or none: CSV where the name ends so, an indented list for .json, else JSON lines."""
    suffix = path.suffix.lower()
    if suffix in TABLES:
        write_text(path, _table_text(rows, "\t" if suffix == ".tsv" else ","))
    elif suffix == ".json":
        write_text(path, json.dumps(list(rows), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    else:
        write_jsonl(path, rows)


def _numbered(rows: Iterator[Line]) -> Iterator[tuple[int, Line]]:
    """Lines keep their numbers; questions of articles, several of which have the number of one article, are counted."""
    count = 0
    for row in rows:
        count = max(count + 1, row.number)
        yield count, row


def _unwritable(value: Any) -> str:
    """Why no file can hold the value again: half a surrogate pair, NaN, infinities."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        return f"cannot be written as JSON again: {error}"[:120]
    return ""


def _questions(line: Line) -> Iterator[Line]:
    """An article of SQuAD's own files as one record a question, paragraph and title beside it; other records as is."""
    if line.error or not isinstance(line.value.get("paragraphs"), list):
        yield line
        return
    title = {"title": line.value["title"]} if line.value.get("title") else {}
    for at, value in enumerate(line.value["paragraphs"], start=1):
        origin = f"{line.origin}, paragraph {at}"
        paragraph, error = object_of(value)
        questions = paragraph.get("qas")
        if error or not isinstance(questions, list):
            yield Line(origin, {}, error or "qas is not a list of questions", line.number)
            continue
        for number, question in enumerate(questions, start=1):
            record, error = object_of(question)
            context = {"context": paragraph["context"]} if "context" in paragraph else {}
            yield Line(f"{origin}, question {number}", {**record, **context, **title}, error, line.number)


def _table_text(rows: Sequence[Mapping[str, Any]], delimiter: str) -> str:
    header = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, header, restval="", delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
