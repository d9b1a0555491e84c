"""The formats by name, and which of them a file is in.

| name | a record has | holds |
|---|---|---|
| chat | messages | everything but the border between question and context |
| sharegpt | conversations | as chat |
| alpaca | instruction, output[, input, system, history] | turns of question and answer; no tool calls |
| qa | question, answer (or answers)[, context, system] | one turn; no tool calls |
| prompt_completion | prompt, completion | as chat; plain texts where those suffice |
| csv | the columns of qa | as qa; other fields as text |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import Line
from stages.core.record_files import TABLES
from stages.formats import chat, pairs, sharegpt
from stages.formats.conversation import Conversation, Losses

Read = Callable[[Mapping[str, Any]], Conversation]
Write = Callable[[Conversation, Losses], dict[str, Any]]


@dataclass(frozen=True)
class Format:
    """signs: keys that a record of this format has, of each group at least one. in_cells: how the cells of a table hold
    it, None where they cannot."""

    name: str
    signs: tuple[tuple[str, ...], ...]
    read: Read
    writer: Callable[[Sequence[Conversation]], Write]  # all that are written together may decide how each is
    in_cells: Write | None = None

    def fits(self, row: Mapping[str, Any]) -> bool:
        return all(any(key in row for key in group) for group in self.signs)


FORMATS = {
    format.name: format
    for format in (
        Format("chat", (("messages",),), chat.read_chat, lambda _: chat.write_chat),
        Format("sharegpt", (("conversations",),), sharegpt.read_sharegpt, lambda _: sharegpt.write_sharegpt),
        Format(
            "alpaca",
            (("instruction",), ("output",)),
            pairs.read_alpaca,
            lambda _: pairs.write_alpaca,
            pairs.write_alpaca,
        ),
        Format("qa", (("question",), ("answer", "answers")), pairs.read_qa, lambda _: pairs.write_qa, pairs.write_qa),
        Format(
            "prompt_completion",
            (("prompt",), ("completion",)),
            pairs.read_prompt,
            pairs.prompt_writer,
            pairs.write_prompt,
        ),
    )
}
IN_TABLES = tuple(name for name, form in FORMATS.items() if form.in_cells)
NAMES = (*FORMATS, "csv")  # csv: a table of any of those that fit into one; written, that of qa


def detect(path: Path, lines: Sequence[Line]) -> str:
    """The name of the format most of the records are in (the first of the table, where two have as many).

    Raises DataError naming the keys that were found where no record is in any.
    """
    votes = Counter(name for line in lines if not line.error and (name := format_of(line.value)))
    if votes:
        return max(FORMATS, key=lambda name: votes[name])
    keys = sorted({key for line in lines[:100] for key in line.value})
    found = f"records have {', '.join(keys[:12])}" if keys else _first_error(lines)
    known = "; ".join(f"{form.name}: {', '.join('|'.join(group) for group in form.signs)}" for form in FORMATS.values())
    raise DataError(f"{path}: in no known format ({found}); known are {known}")


def format_of(row: Mapping[str, Any]) -> str:
    """The format whose signs the record bears; "" where it bears none's."""
    return next((form.name for form in FORMATS.values() if form.fits(row)), "")


def table_row(row: Mapping[str, Any], losses: Losses) -> dict[str, str]:
    """A record as cells of text. Counts field_became_text: of another type than text, or empty (and then absent)."""
    known = {*pairs.ALPACA_KEYS, *pairs.QA_KEYS, *pairs.PROMPT_KEYS}
    for key, value in row.items():
        losses["field_became_text"] += not isinstance(value, str) or not (value or key in known)
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in row.items()
    }


def is_table(path: Path, target: str) -> bool:
    """Whether records go into cells. Raises DataError where the file's name and the format contradict each other."""
    table = path.suffix.lower() in TABLES
    if target == "csv" and not table:
        raise DataError(f"{path}: a table needs a name that ends in {' or '.join(TABLES)}")
    if table and target not in (*IN_TABLES, "csv"):
        raise DataError(f"{path}: a table cannot hold {target}; choose {', '.join(IN_TABLES)}, or another name")
    return table


def _first_error(lines: Sequence[Line]) -> str:
    return next((f"{line.origin}: {line.error}" for line in lines if line.error), "it holds no record")
