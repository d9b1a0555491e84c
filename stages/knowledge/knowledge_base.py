"""The knowledge base: data/<domain>/knowledge.sqlite, from which every later stage reads documents and chunks.

    documents   what was looked at; `reason` says why one was rejected
    chunks      in order; `text` is in force, `original` what was cut where a person edited it (NULL elsewhere)
    edits       all of them, in order, with what became of each: applied, undone, superseded or orphaned
    fulltext    FTS5 over the stems of section and text; its rowid is chunks.place
    languages   in which the words of documents were stemmed: a query is stemmed in all of them
    frequent    stems that stand in at least one of a hundred chunks, with the number of chunks

`ingest` writes it whole; nothing changes it in place, as it may be a link into DVC's cache. The same rows give the
same bytes (with the same version of SQLite, which notes its number in the file).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.knowledge.kb_edits import APPLIED, ORPHANED, Edit, EditTargets, Outcome
from stages.knowledge.kb_stemming import language_of, stems
from stages.knowledge.records import Chunk

__all__ = ["Applied", "DocumentRow", "Edit", "read_chunks", "write_knowledge"]

APPLICATION_ID = int.from_bytes(b"gtkb")
PAGE_BYTES = 4096
REBUILD = "run `dvc repro ingest` to build it"
FREQUENT_SHARE = 0.01
LANGUAGE_SAMPLE_CHUNKS = 4
# Step n brings a file of version n to n + 1. What has been released is never changed: a new step is added.
MIGRATIONS = (
    """
    CREATE TABLE documents (
        place INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, format TEXT NOT NULL,
        sha256 TEXT NOT NULL, num_bytes INTEGER NOT NULL, num_pages INTEGER NOT NULL, num_chars INTEGER NOT NULL,
        failed_pages TEXT NOT NULL, metadata TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL);
    CREATE TABLE chunks (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, document TEXT NOT NULL,
        section TEXT NOT NULL, number INTEGER NOT NULL, page INTEGER, "begin" INTEGER NOT NULL, "end" INTEGER NOT NULL,
        origin TEXT NOT NULL, questions TEXT NOT NULL, metadata TEXT NOT NULL, text TEXT NOT NULL, original TEXT);
    CREATE INDEX chunks_of_document ON chunks (document, kind, number);
    CREATE TABLE edits (
        place INTEGER PRIMARY KEY, chunk TEXT NOT NULL, original_sha256 TEXT NOT NULL, text TEXT NOT NULL,
        at TEXT NOT NULL, note TEXT NOT NULL, state TEXT NOT NULL, target TEXT NOT NULL);
    CREATE VIRTUAL TABLE fulltext USING fts5 (section, text, content = '', tokenize = 'unicode61');
    CREATE TABLE languages (language TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE frequent (stem TEXT PRIMARY KEY, num_chunks INTEGER NOT NULL) WITHOUT ROWID;
    """,
)
INSERT_DOCUMENT = """
    INSERT INTO documents (name, kind, title, format, sha256, num_bytes, num_pages, num_chars, failed_pages, metadata,
                           reason, detail)
    VALUES (:name, :kind, :title, :format, :sha256, :num_bytes, :num_pages, :num_chars, :failed_pages, :metadata,
            :reason, :detail)"""
INSERT_CHUNK = """
    INSERT INTO chunks (id, kind, document, section, number, page, "begin", "end", origin, questions, metadata, text)
    VALUES (:id, :kind, :document, :section, :number, :page, :begin, :end, :origin, :questions, :metadata, :text)"""
INSERT_EDIT = """
    INSERT INTO edits (chunk, original_sha256, text, at, note, state, target)
    VALUES (:chunk, :original_sha256, :text, :at, :note, :state, :target)"""
JSON_COLUMNS = ("failed_pages", "metadata", "questions")


@dataclass(frozen=True)
class DocumentRow:
    """A document that was read, or (with a `reason`, a snake_case code, and a `detail` for people) was not."""

    name: str
    kind: str
    title: str
    format: str
    sha256: str
    num_bytes: int
    num_pages: int
    num_chars: int
    failed_pages: list[int] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Applied:
    """num_applied: chunks whose text is an edited one. orphaned: edits whose text no chunk has any more."""

    num_applied: int
    orphaned: list[Edit]


def write_knowledge(
    path: Path, documents: Iterable[DocumentRow], chunks: Iterable[Chunk], edits: Sequence[Edit] = ()
) -> Applied:
    """Writes the file whole or not at all. Documents and chunks are taken one by one and may be generators.

    Raises DataError where two chunks have the same id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.tmp-*"):
        leftover.unlink(missing_ok=True)
    build, whole = (path.with_name(f".{path.name}.tmp-{os.getpid()}-{part}") for part in ("build", "whole"))
    try:
        with closing(sqlite3.connect(build, isolation_level=None)) as connection:
            applied = _fill(connection, documents, chunks, edits)
            connection.execute("VACUUM INTO ?", (str(whole),))
        with open(whole, "rb") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)
    finally:
        build.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)
    return applied


def read_chunks(path: Path) -> list[Chunk]:
    """All chunks, edits applied, in the order they were written; errors as `open_knowledge`."""
    with open_knowledge(path) as connection:
        return [to_chunk(row) for row in connection.execute("SELECT * FROM chunks ORDER BY place")]


@contextmanager
def open_knowledge(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection; rows can be asked by column name. May be used from several threads.

    A file of an earlier version is copied into memory and brought up to date there.
    Raises DataError where the file is missing, not a knowledge base, of a later version, or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; {REBUILD}")
    try:
        # immutable: no lock and no journal, so that a read-only folder will do
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
            version = _version(connection, path)
            if version == len(MIGRATIONS):
                yield _with_names(connection)
                return
            with closing(sqlite3.connect(":memory:", check_same_thread=False)) as copy:
                connection.backup(copy)
                migrate(copy, version)
                yield _with_names(copy)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a knowledge base, or damaged ({error}); {REBUILD}") from error


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Takes the steps from `version` (0: an empty file) to this one."""
    for step in MIGRATIONS[version:]:
        connection.executescript(step)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def to_chunk(row: sqlite3.Row) -> Chunk:
    """From a row of `chunks`."""
    return Chunk(**_values(row, Chunk))


def to_document(row: sqlite3.Row) -> DocumentRow:
    """From a row of `documents`."""
    return DocumentRow(**_values(row, DocumentRow))


def to_outcome(row: sqlite3.Row) -> Outcome:
    """From a row of `edits`."""
    return Outcome(Edit(**_values(row, Edit)), row["state"], row["target"])


def _values(row: sqlite3.Row, cls: type[Any]) -> dict[str, Any]:
    names = [key.name for key in fields(cls)]
    return {name: json.loads(row[name]) if name in JSON_COLUMNS else row[name] for name in names}


def _with_json(values: dict[str, Any]) -> dict[str, Any]:
    dumped = {name: json.dumps(values[name], ensure_ascii=False) for name in JSON_COLUMNS if name in values}
    return {**values, **dumped}


def _with_names(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    application_id, version = (
        connection.execute(f"PRAGMA {key}").fetchone()[0] for key in ("application_id", "user_version")
    )
    if application_id != APPLICATION_ID:
        raise DataError(f"{path}: an SQLite file, but not a knowledge base of groundtune; {REBUILD}")
    if version > len(MIGRATIONS):
        raise DataError(
            f"{path}: schema {version} was written by a later groundtune (this one reads up to {len(MIGRATIONS)}); "
            "update groundtune, or `dvc repro ingest` to build it again"
        )
    return int(version)


def _fill(
    connection: sqlite3.Connection, documents: Iterable[DocumentRow], chunks: Iterable[Chunk], edits: Sequence[Edit]
) -> Applied:
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        f"application_id = {APPLICATION_ID}",
        "journal_mode = OFF",
        "synchronous = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    migrate(connection, 0)
    _with_names(connection).execute("BEGIN")
    connection.executemany(INSERT_DOCUMENT, (_with_json(vars(row)) for row in documents))
    targets = EditTargets(edits)
    try:
        connection.executemany(INSERT_CHUNK, (_with_json(vars(chunk)) for chunk in _seen(chunks, targets)))
    except sqlite3.IntegrityError as error:
        raise DataError(f"two chunks have the same id, or one has no number ({error})") from error
    outcomes = targets.outcomes()
    _apply(connection, outcomes)
    _index_words(connection)
    connection.execute("COMMIT")
    num_applied = sum(outcome.state == APPLIED for outcome in outcomes)
    return Applied(num_applied, [outcome.edit for outcome in outcomes if outcome.state == ORPHANED])


def _seen(chunks: Iterable[Chunk], targets: EditTargets) -> Iterator[Chunk]:
    for chunk in chunks:
        targets.see(chunk)
        yield chunk


def _apply(connection: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    rows = ({**vars(outcome.edit), "state": outcome.state, "target": outcome.target} for outcome in outcomes)
    connection.executemany(INSERT_EDIT, rows)
    connection.execute(
        "UPDATE chunks SET original = chunks.text, text = edits.text FROM edits "
        "WHERE edits.target = chunks.id AND edits.state = ?",
        (APPLIED,),
    )


def _index_words(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT place, kind, document, section, text FROM chunks ORDER BY place")
    for (document, kind), members in groupby(rows, key=lambda row: (row["document"], row["kind"])):
        language = _language(connection, document, kind)
        connection.execute("INSERT OR IGNORE INTO languages VALUES (?)", (language,))
        connection.executemany(
            "INSERT INTO fulltext (rowid, section, text) VALUES (?, ?, ?)",
            ((row["place"], *(" ".join(stems(row[key], language)) for key in ("section", "text"))) for row in members),
        )
    connection.execute("INSERT INTO fulltext (fulltext) VALUES ('optimize')")
    connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, fulltext, row)")
    connection.execute(
        "INSERT INTO frequent SELECT term, doc FROM temp.vocabulary WHERE doc >= ? * (SELECT count(*) FROM chunks)",
        (FREQUENT_SHARE,),
    )


def _language(connection: sqlite3.Connection, document: str, kind: str) -> str:
    rows = connection.execute(
        "SELECT text FROM chunks WHERE document = ? AND kind = ? ORDER BY number LIMIT ?",
        (document, kind, LANGUAGE_SAMPLE_CHUNKS),
    )
    return language_of("\n".join(row["text"] for row in rows))
