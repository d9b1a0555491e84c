"""Edits of chunks: what people changed, kept beside the documents (data/<domain>/curation/edits.jsonl, in git).

    {"chunk": "book-0031", "original_sha256": "9f86...", "text": "Bako is a mill.", "at": "2026-11-21T14:30:00Z",
     "note": "a typing error of the scan"}

The file only grows; a later edit of the same original text wins, and one that gives the original text back undoes the
earlier ones. An edit belongs to a *text*: when documents are cut anew it follows that text to the chunk's new number,
and where no chunk of the document has the text any more it is orphaned: reported, and kept.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.errors import DataError
from stages.core.jsonl import append_jsonl, iterate_lines
from stages.knowledge.records import Chunk

APPLIED, UNDONE, SUPERSEDED, ORPHANED = "applied", "undone", "superseded", "orphaned"


@dataclass(frozen=True)
class Edit:
    """chunk: its id when it was edited. original_sha256: of the text that ingest cut. at: ISO 8601, UTC."""

    chunk: str
    original_sha256: str
    text: str
    at: str
    note: str = ""

    @property
    def undoes(self) -> bool:
        """Whether it gives the original text back."""
        return text_sha256(self.text) == self.original_sha256


@dataclass(frozen=True)
class Outcome:
    """What became of an edit. target: the id of the chunk that it is about now ("": none)."""

    edit: Edit
    state: str  # applied | undone | superseded | orphaned
    target: str


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_edits(path: Path) -> list[Edit]:
    """All edits, oldest first; [] where there is no file. A line that is no edit raises DataError with file:line."""
    if not path.exists():
        return []
    edits = []
    for line in iterate_lines(path):
        try:
            edit = Edit(**line.value)
        except TypeError as error:
            raise DataError(f"{path.parent}/{line.origin}: no edit: {line.error or error}") from error
        if not all(isinstance(value, str) for value in asdict(edit).values()) or not edit.text.strip():
            raise DataError(f"{path.parent}/{line.origin}: no edit: every value is a text, and `text` is not empty")
        edits.append(edit)
    return edits


def append_edit(path: Path, edit: Edit) -> None:
    """Adds one line, which is on the disk when this returns."""
    append_jsonl(path, [asdict(edit)])


class EditTargets:
    """Finds what edits apply to while the chunks go by, so that their texts need not be kept."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits
        self._documents = {_document(edit.chunk) for edit in edits}
        self._ids: dict[tuple[str, str], list[str]] = defaultdict(list)  # (document, hash of the text) -> chunks

    def see(self, chunk: Chunk) -> None:
        """To be called with every chunk, as it was cut."""
        if (document := _document(chunk.id)) in self._documents:
            self._ids[document, text_sha256(chunk.text)].append(chunk.id)

    def outcomes(self) -> list[Outcome]:
        """One for each edit, in their order."""
        targets = [self._target(edit) for edit in self._edits]
        keys = [target or _key(edit) for edit, target in zip(self._edits, targets, strict=True)]
        last = {key: number for number, key in enumerate(keys)}
        return [
            Outcome(edit, _state(edit, target, last[key] == number), target)
            for number, (edit, target, key) in enumerate(zip(self._edits, targets, keys, strict=True))
        ]

    def _target(self, edit: Edit) -> str:
        ids = self._ids.get(_key(edit), [])
        if edit.chunk in ids or not ids:
            return edit.chunk if ids else ""
        wanted = _number(edit.chunk)
        return min(ids, key=lambda found: (abs(_number(found) - wanted), found))


def _state(edit: Edit, target: str, is_last: bool) -> str:
    if not is_last:
        return SUPERSEDED
    if edit.undoes:
        return UNDONE
    return APPLIED if target else ORPHANED


def _key(edit: Edit) -> tuple[str, str]:
    return _document(edit.chunk), edit.original_sha256


def _document(chunk_id: str) -> str:
    """What the ids of one document's chunks begin with: book-9f86d081 of book-9f86d081-0031."""
    return chunk_id.rpartition("-")[0]


def _number(chunk_id: str) -> int:
    number = chunk_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
