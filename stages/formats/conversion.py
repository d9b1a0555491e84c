"""A file in one format -> a file in another, with an account of every record and of what the target cannot hold.

conversion = convert(Path("qa.csv"), Path("qa.jsonl"), "chat")
conversion.ledger.metrics()   # {"num_read": 3, "num_kept": 2, "num_rejected": 1, "rejected": {"empty_text": 1}}
conversion.losses             # {"context_joined": 2}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import Line
from stages.core.ledger import Ledger
from stages.formats.conversation import Conversation, Flaw, Losses
from stages.formats.files import read_rows, write_rows
from stages.formats.formats import FORMATS, NAMES, detect, format_of, is_table, table_row

LOSSES = {
    "context_joined": "context became the end of the question",
    "message_fields": "fields of a message were left out",
    "field_name_taken": "a field bears a name that the format needs for itself, and was left out",
    "field_became_text": "a field became text in a cell, or was empty and is absent",
    "developer_role": "the developer's text became the system's",
}


@dataclass(frozen=True)
class Record:
    """A conversation and where it stood; number: what no other record of the file has (see Line)."""

    origin: str
    number: int
    conversation: Conversation


@dataclass(frozen=True)
class Read:
    """The usable records of a file."""

    format: str
    records: list[Record]


@dataclass(frozen=True)
class Conversion:
    """source, target: names of formats. losses: kind (see LOSSES) -> count, in the records that were kept."""

    source: str
    target: str
    ledger: Ledger
    losses: dict[str, int]


def read_file(path: Path, ledger: Ledger, format: str = "", tool_calls: bool = True) -> Read:
    """The records that can be used; the others go to the ledger. format "": is found out.

    tool_calls False: conversations with tool calls are rejected, with the names of the tools.
    Raises DataError where the file cannot be read at all or is in no known format, ConfigError for an unknown name.
    """
    if format and format not in NAMES:
        raise ConfigError(f"unknown format {format}; known: {', '.join(NAMES)}")
    lines = read_rows(path)
    name = format if format in FORMATS else detect(path, lines)
    records = []
    for line in lines:
        ledger.read()
        try:
            records.append(Record(line.origin, line.number, _conversation(line, name, tool_calls)))
        except Flaw as flaw:
            ledger.reject(line.origin, flaw.reason, flaw.detail)
    return Read(name, records)


def convert(source: Path, target: Path | None, to: str = "", format: str = "", tool_calls: bool = True) -> Conversion:
    """Reads `source` and writes `target` in format `to`; target None: only checks; to "": as it came.

    Raises DataError where no record is left, and as read_file does; then nothing is written.
    """
    ledger = Ledger(source.name)
    if to and to not in NAMES:
        raise ConfigError(f"unknown format {to}; known: {', '.join(NAMES)}")
    if target is not None and target.is_dir():
        raise DataError(f"{target}: is a folder; name a file in it")
    if target is not None and target.exists() and source.exists() and target.samefile(source):
        raise DataError(f"{target}: would overwrite what is read; give another name")
    read = read_file(source, ledger, format, tool_calls)
    chosen = to or read.format
    table = is_table(target, chosen) if target is not None else chosen == "csv"
    rows, losses = _written(read.records, "qa" if chosen == "csv" else chosen, table, ledger)
    ledger.check(len(rows))
    if target is not None:
        write_rows(target, rows)
    return Conversion(read.format, chosen, ledger, dict(sorted((+losses).items())))


def _conversation(line: Line, name: str, tool_calls: bool) -> Conversation:
    if line.error:
        raise Flaw("broken_record", line.error)
    if not FORMATS[name].fits(line.value) and (other := format_of(line.value)):
        raise Flaw("other_format", f"is {other}, not {name}")
    conversation = FORMATS[name].read(line.value)
    if conversation.tool_names and not tool_calls:
        raise Flaw("tool_calls", f"calls {', '.join(conversation.tool_names)}")
    return conversation


def _written(records: Sequence[Record], to: str, table: bool, ledger: Ledger) -> tuple[list[dict[str, Any]], Losses]:
    """Rows in the target's form; what it cannot hold at all goes to the ledger, and its losses do not count."""
    form = FORMATS[to]
    write = (form.in_cells if table else None) or form.writer([record.conversation for record in records])
    rows: list[dict[str, Any]] = []
    losses: Losses = Counter()
    for record in records:
        lost: Losses = Counter()
        try:
            row = write(record.conversation, lost)
        except Flaw as flaw:
            ledger.reject(record.origin, flaw.reason, f"{to} cannot hold it: {flaw.detail}")
            continue
        rows.append(dict(table_row(row, lost)) if table else row)
        losses += lost
    return rows, losses
