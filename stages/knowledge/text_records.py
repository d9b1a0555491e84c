"""Connected text that comes as records: ready chunks with their questions, or whole chapters.

{"chapter": "Chapter 3", "text": "...", "questions": ["Who founded Bako?"]}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.core.ledger import Ledger
from stages.core.schema import Source
from stages.knowledge import raw_files
from stages.knowledge.cleaning import normalise

NEEDED = ("text",)
OPTIONAL = ("document", "section", "questions")


@dataclass(frozen=True)
class TextRecord:
    """document: its name, the file's where the record has none."""

    origin: str
    document: str
    section: str
    text: str
    questions: list[str]


def read_records(path: Path, source: Source, ledger: Ledger) -> Iterator[TextRecord | None]:
    """Every record in order, normalised; None in the place of one that was rejected: fixing it renumbers nothing.

    Raises ConfigError where the source's `fields` are wrong, DataError where the file cannot be read.
    """
    raw_files.check_fields(source, NEEDED, OPTIONAL, "domain.texts")
    for item in raw_files.iterate_items(path):
        ledger.read()
        try:
            record = _record(path, source, item)
        except raw_files.WrongTypeError as error:
            ledger.reject(item.origin, "wrong_type", str(error))
            yield None
            continue
        if not record.text:
            ledger.reject(item.origin, "broken_record" if item.error else "empty_text", item.error)
        yield record if record.text else None


def _record(path: Path, source: Source, item: raw_files.Item) -> TextRecord:
    questions = (normalise(question) for question in raw_files.list_of(item.values, source, "questions"))
    return TextRecord(
        origin=item.origin,
        document=normalise(raw_files.text_of(item.values, source, "document")) or path.stem,
        section=normalise(raw_files.text_of(item.values, source, "section")),
        text=normalise(raw_files.text_of(item.values, source, "text")),
        questions=[question for question in questions if question],
    )
