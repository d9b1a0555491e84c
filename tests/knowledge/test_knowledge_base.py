"""The knowledge base: what is written is read, whole, in the same bytes, with the edits that apply."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.knowledge import knowledge_base
from stages.knowledge.kb_edits import Edit, append_edit, read_edits, text_sha256
from stages.knowledge.knowledge_base import (
    DocumentRow,
    open_knowledge,
    read_chunks,
    to_document,
    to_outcome,
    write_knowledge,
)
from stages.knowledge.records import Chunk

DOCUMENTS = [
    DocumentRow("mills.pdf", "book", "Mills", "pdf", "ab", 1000, 2, 90, [2], {"author": "Lona Tir"}),
    DocumentRow("scan.pdf", "book", "", "pdf", "cd", 2000, 1, 0, reason="no_text", detail="a scan"),
]
CHUNKS = [
    Chunk("book-0a-0001", "book", "mills.pdf", "Mills > Bako", 1, "Bako is a mill.", ["What is Bako?"], "o", 1, 0, 15),
    Chunk("book-0a-0002", "book", "mills.pdf", "Mills > Bako", 2, "Ёлка стоит у реки.", metadata={"table": True}),
    Chunk("book-0a-0003", "book", "mills.pdf", "", 3, "The wheel turns.\x00\U0001f600"),
]


def edit(number: int, original: str, text: str, at: str = "2026-01-01T00:00:00Z") -> Edit:
    return Edit(f"book-0a-{number:04d}", text_sha256(original), text, at)


def states(path: Path) -> list[tuple[str, str]]:
    with open_knowledge(path) as connection:
        outcomes = [to_outcome(row) for row in connection.execute("SELECT * FROM edits ORDER BY place")]
    return [(outcome.state, outcome.target) for outcome in outcomes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/d/knowledge.sqlite"


def test_what_is_written_is_read(path: Path) -> None:
    assert write_knowledge(path, DOCUMENTS, CHUNKS).num_applied == 0
    assert read_chunks(path) == CHUNKS
    with open_knowledge(path) as connection:
        assert [to_document(row) for row in connection.execute("SELECT * FROM documents")] == DOCUMENTS
        assert [row["language"] for row in connection.execute("SELECT * FROM languages")] == ["english"]
    assert [file.name for file in path.parent.iterdir()] == ["knowledge.sqlite"]


def test_equal_rows_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    edits = [edit(1, CHUNKS[0].text, "Bako was a mill.")]
    write_knowledge(path, DOCUMENTS, CHUNKS, edits)
    write_knowledge(tmp_path / "other.sqlite", iter(DOCUMENTS), iter(CHUNKS), edits)
    assert path.read_bytes() == (tmp_path / "other.sqlite").read_bytes()
    write_knowledge(path, DOCUMENTS, CHUNKS)
    assert path.read_bytes() != (tmp_path / "other.sqlite").read_bytes()


def test_nothing_at_all_is_a_knowledge_base_too(path: Path) -> None:
    write_knowledge(path, [], [])
    assert read_chunks(path) == []


def test_a_failing_writer_leaves_the_old_file(path: Path) -> None:
    def failing() -> Iterator[Chunk]:
        yield CHUNKS[1]
        raise KeyboardInterrupt

    write_knowledge(path, [], CHUNKS[:1])
    with pytest.raises(KeyboardInterrupt):
        write_knowledge(path, [], failing())
    with pytest.raises(DataError, match="two chunks have the same id"):
        write_knowledge(path, [], [CHUNKS[1], CHUNKS[1]])
    assert read_chunks(path) == CHUNKS[:1]
    assert len(list(path.parent.iterdir())) == 1


def test_leftovers_of_a_killed_writer_go(path: Path) -> None:
    path.parent.mkdir(parents=True)
    (path.parent / ".knowledge.sqlite.tmp-1-build").write_text("x")
    write_knowledge(path, [], CHUNKS)
    assert [file.name for file in path.parent.iterdir()] == ["knowledge.sqlite"]


def test_reading_changes_nothing_and_needs_no_right_to_write(path: Path) -> None:
    write_knowledge(path, DOCUMENTS, CHUNKS)
    before = path.read_bytes()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert read_chunks(path) == CHUNKS
        with open_knowledge(path) as connection, pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM chunks")
    finally:
        path.parent.chmod(0o755)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["knowledge.sqlite"]


def test_a_missing_foreign_or_damaged_file_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; run `dvc repro ingest`"):
        read_chunks(path)
    path.parent.mkdir(parents=True)
    for content in (b"", b"no database at all, but long enough to be one" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a knowledge base"):
            read_chunks(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE chunks (id TEXT)")
    with pytest.raises(DataError, match="an SQLite file, but not a knowledge base of groundtune"):
        read_chunks(path)
    write_knowledge(path, [], CHUNKS * 1)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(DataError, match="damaged"):
        read_chunks(path)


def test_a_later_version_is_refused_and_an_earlier_one_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_knowledge(path, DOCUMENTS, CHUNKS)
    before = path.read_bytes()
    steps = (*knowledge_base.MIGRATIONS, "ALTER TABLE chunks ADD COLUMN stars INTEGER NOT NULL DEFAULT 5;")
    monkeypatch.setattr(knowledge_base, "MIGRATIONS", steps)
    with open_knowledge(path) as connection:
        assert connection.execute("SELECT sum(stars) FROM chunks").fetchone()[0] == 15
    assert read_chunks(path) == CHUNKS
    assert path.read_bytes() == before  # it may be a link into a cache
    write_knowledge(path, DOCUMENTS, CHUNKS)
    monkeypatch.setattr(knowledge_base, "MIGRATIONS", steps[:1])
    with pytest.raises(DataError, match=r"schema 2 was written by a later groundtune \(this one reads up to 1\)"):
        read_chunks(path)


def test_the_last_edit_of_a_text_wins(path: Path) -> None:
    first, second = edit(1, CHUNKS[0].text, "Bako was a mill."), edit(1, CHUNKS[0].text, "Bako is an old mill.")
    applied = write_knowledge(path, DOCUMENTS, CHUNKS, [first, second])
    assert (applied.num_applied, applied.orphaned) == (1, [])
    assert read_chunks(path) == [replace(CHUNKS[0], text=second.text), *CHUNKS[1:]]
    assert states(path) == [("superseded", "book-0a-0001"), ("applied", "book-0a-0001")]
    with open_knowledge(path) as connection:
        originals = [row["original"] for row in connection.execute("SELECT original FROM chunks ORDER BY place")]
    assert originals == [CHUNKS[0].text, None, None]


def test_giving_the_original_back_undoes(path: Path) -> None:
    edits = [edit(1, CHUNKS[0].text, "Bako was a mill."), edit(1, CHUNKS[0].text, CHUNKS[0].text)]
    assert write_knowledge(path, DOCUMENTS, CHUNKS, edits).num_applied == 0
    assert read_chunks(path) == CHUNKS
    assert states(path) == [("superseded", "book-0a-0001"), ("undone", "book-0a-0001")]
    assert write_knowledge(path, DOCUMENTS, CHUNKS[1:], edits).orphaned == []  # there is nothing to lose


def test_an_edit_follows_its_text_to_a_new_number(path: Path) -> None:
    old, new = edit(1, CHUNKS[0].text, "Bako was a mill."), edit(4, CHUNKS[0].text, "Bako is old.")
    moved = [replace(CHUNKS[0], id="book-0a-0004", number=4), replace(CHUNKS[1], id="book-0a-0001", number=1)]
    assert write_knowledge(path, DOCUMENTS, moved, [old]).num_applied == 1
    assert [chunk.text for chunk in read_chunks(path)] == ["Bako was a mill.", CHUNKS[1].text]
    write_knowledge(path, DOCUMENTS, moved, [old, new])  # edited again under its new number
    assert [chunk.text for chunk in read_chunks(path)] == ["Bako is old.", CHUNKS[1].text]
    other = [replace(CHUNKS[0], id="book-0b-0001")]  # the same text in another document is another text
    assert write_knowledge(path, DOCUMENTS, other, [old]).orphaned == [old]


def test_of_equal_texts_the_chunk_itself_or_the_nearest_is_edited(path: Path) -> None:
    same = [Chunk(f"book-0a-{n:04d}", "book", "mills.pdf", "", n, "Page of Mills") for n in (1, 4, 9)]
    write_knowledge(path, [], same, [edit(4, "Page of Mills", "4"), edit(8, "Page of Mills", "9")])
    assert [chunk.text for chunk in read_chunks(path)] == ["Page of Mills", "4", "9"]


def test_an_edit_without_its_text_is_orphaned_and_kept(path: Path) -> None:
    lost = [edit(1, "What stood there once", "A"), edit(1, "What stood there once", "B")]
    applied = write_knowledge(path, DOCUMENTS, CHUNKS, lost)
    assert (applied.num_applied, applied.orphaned) == (0, lost[1:])
    assert states(path) == [("superseded", ""), ("orphaned", "")]
    assert read_chunks(path) == CHUNKS


def test_edits_are_appended_and_read(tmp_path: Path) -> None:
    path = tmp_path / "curation/edits.jsonl"
    assert read_edits(path) == []
    edits = [edit(1, "a", "Ёлка\u2028\n"), edit(2, "b", "c")]
    append_edit(path, edits[0])
    append_edit(path, edits[1])
    assert read_edits(path) == edits
    path.write_bytes(path.read_bytes() + b'{"chunk": "cut o')
    append_edit(path, edits[0])
    with pytest.raises(DataError, match=r"curation/edits.jsonl:3: no edit: broken JSON"):
        read_edits(path)


@pytest.mark.parametrize("line", ['{"chunk": "a"}', '{"chunk": "a", "stars": 5}', "[]", '{"chunk":"a","original_sha256":"b","text":" ","at":"c"}', '{"chunk":1,"original_sha256":"b","text":"d","at":"c"}'])  # fmt: skip
def test_a_line_that_is_no_edit_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "edits.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"edits.jsonl:1: no edit: "):
        read_edits(tmp_path / "edits.jsonl")


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("any") / "knowledge.sqlite"
    chunks = [Chunk(f"a-{n}", "article", section, section, n, text) for n, (section, text) in enumerate(rows)]
    write_knowledge(path, [], chunks)
    assert read_chunks(path) == chunks
