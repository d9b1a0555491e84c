"""What a person sees and changes: the knowledge base together with the edits that are not yet in it.

    with open_curation(knowledge, edits) as curation:
        curation.chunk("book-0031").text                   # a pending edit before what is in force
        curation.edit("book-0031", "Bako is a mill.", at="2026-11-21T14:30:00Z")

An edit is pending from the moment it is made until `ingest` has run.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stages.core.errors import DataError
from stages.knowledge.kb_edits import ORPHANED, Edit, Outcome, append_edit, read_edits, text_sha256
from stages.knowledge.kb_fulltext import Filter
from stages.knowledge.knowledge_base import DocumentRow, open_knowledge, to_chunk, to_document, to_outcome
from stages.knowledge.records import Chunk

STATES = ("read", "edited", "rejected")


@dataclass(frozen=True)
class DocumentState:
    """A document, how many chunks it has, and how many of them are edited, or will be by the next `ingest`."""

    document: DocumentRow
    num_chunks: int
    num_edited: int
    num_pending: int

    @property
    def state(self) -> str:
        """read | edited | rejected"""
        if self.document.reason:
            return "rejected"
        return "edited" if self.num_edited or self.num_pending else "read"


@dataclass(frozen=True)
class ChunkState:
    """chunk: as it is in force. original: its text as it was cut. history, pending: its edits, oldest first."""

    chunk: Chunk
    original: str
    history: list[Outcome]
    pending: list[Edit]

    @property
    def text(self) -> str:
        """As it will be after the next `ingest`."""
        return self.pending[-1].text if self.pending else self.chunk.text


@contextmanager
def open_curation(knowledge: Path, edits: Path) -> Iterator[Curation]:
    """Errors as `open_knowledge` and `read_edits`."""
    with open_knowledge(knowledge) as connection:
        yield Curation(connection, edits)


class Curation:
    """edits: the file that edits are added to; the knowledge base is only read."""

    def __init__(self, connection: sqlite3.Connection, edits: Path) -> None:
        self._connection, self.edits = connection, edits

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The edits that the last `ingest` saw, oldest first."""
        return [to_outcome(row) for row in self._connection.execute("SELECT * FROM edits ORDER BY place")]

    @property
    def orphaned(self) -> list[Edit]:
        return [outcome.edit for outcome in self.outcomes if outcome.state == ORPHANED]

    @cached_property
    def pending(self) -> list[Edit]:
        """The edits that came after it, oldest first."""
        known = {outcome.edit for outcome in self.outcomes}
        return [edit for edit in read_edits(self.edits) if edit not in known]

    def documents(self, prefix: str = "") -> list[DocumentState]:
        """Those whose name begins with `prefix`, in the order in which they were read."""
        pending = self._num_pending()
        rows = self._connection.execute(
            "SELECT documents.*, count(chunks.place) AS num_chunks, count(chunks.original) AS num_edited "
            "FROM documents LEFT JOIN chunks ON chunks.document = documents.name AND chunks.kind = documents.kind "
            "WHERE substr(name, 1, length(:prefix)) = :prefix GROUP BY documents.place ORDER BY documents.place",
            {"prefix": prefix},
        )
        return [
            DocumentState(to_document(row), row["num_chunks"], row["num_edited"], pending[row["kind"], row["name"]])
            for row in rows
        ]

    def chunk(self, chunk_id: str) -> ChunkState:
        """Raises DataError where there is none of this id."""
        row = self._connection.execute("SELECT * FROM chunks WHERE id = ?", (chunk_id,)).fetchone()
        if row is None:
            raise DataError(f"{chunk_id}: no chunk has this id; `groundtune kb search` and `show DOCUMENT` find them")
        original = row["text"] if row["original"] is None else row["original"]
        sha256 = text_sha256(original)
        return ChunkState(
            to_chunk(row),
            original,
            [outcome for outcome in self.outcomes if chunk_id in (outcome.target, outcome.edit.chunk)],
            [edit for edit in self.pending if (edit.chunk, edit.original_sha256) == (chunk_id, sha256)],
        )

    def chunks_of(self, name: str) -> list[Chunk]:
        """A document's chunks, in reading order."""
        rows = self._connection.execute("SELECT * FROM chunks WHERE document = ? ORDER BY place", (name,))
        return [to_chunk(row) for row in rows]

    def siblings(self, chunk: Chunk, num: int) -> list[Chunk]:
        """Up to `num` chunks before it and after it in its document, in reading order, itself left out."""
        rows = self._connection.execute(
            "SELECT * FROM chunks WHERE document = ? AND kind = ? AND number BETWEEN ? AND ? AND id != ? "
            "ORDER BY place",
            (chunk.document, chunk.kind, chunk.number - num, chunk.number + num, chunk.id),
        )
        return [to_chunk(row) for row in rows]

    def all_chunks(self, only: Filter) -> Iterator[Chunk]:
        """In order, one by one."""
        rows = self._connection.execute(
            "SELECT * FROM chunks WHERE (:kind = '' OR kind = :kind) "
            "AND substr(document, 1, length(:document)) = :document ORDER BY place",
            {"kind": only.kind, "document": only.document},
        )
        return (to_chunk(row) for row in rows)

    def edit(self, chunk_id: str, text: str, at: str, note: str = "") -> Edit:
        """Adds an edit to the file. Raises DataError where the text is empty, or is the chunk's already."""
        state = self.chunk(chunk_id)
        text = text.replace("\r\n", "\n").strip()
        if not text:
            raise DataError(f"{chunk_id}: the new text is empty; to leave it out, take it out of the document")
        if text == state.text:
            raise DataError(f"{chunk_id}: this is its text already; nothing was changed")
        edit = Edit(chunk_id, text_sha256(state.original), text, at, note)
        self._append(edit)
        return edit

    def undo(self, chunk_id: str, at: str, note: str = "") -> Edit:
        """Gives the original text back. Raises DataError where it is in force."""
        state = self.chunk(chunk_id)
        if state.text == state.original:
            raise DataError(f"{chunk_id}: its text is the original; there is no edit to undo")
        edit = Edit(chunk_id, text_sha256(state.original), state.original, at, note)
        self._append(edit)
        return edit

    def _append(self, edit: Edit) -> None:
        append_edit(self.edits, edit)
        self.__dict__.pop("pending", None)

    def _num_pending(self) -> Counter[tuple[str, str]]:
        """(kind, document) -> chunks with a pending edit."""
        counts: Counter[tuple[str, str]] = Counter()
        for chunk_id in {edit.chunk for edit in self.pending}:
            for row in self._connection.execute("SELECT kind, document FROM chunks WHERE id = ?", (chunk_id,)):
                counts[row["kind"], row["document"]] += 1
        return counts
