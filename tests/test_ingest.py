from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import ingest
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl
from stages.core.schema import Source
from stages.core.workspace import Workspace
from stages.knowledge.records import Chunk

FIELDS = {"document": "book", "section": "chapter", "text": "text", "questions": "questions"}
CONFIG = ingest.Config("d", "raw", [Source("book.jsonl", "book", FIELDS)], chunk_words=6, max_rejected_share=0.9)


def run(folder: Path, config: ingest.Config = CONFIG, **files: list[Any] | str | bytes) -> list[Chunk]:
    """Files are named by their stem; lists become JSONL (strings in them as they are), texts .txt."""
    (folder / "raw").mkdir(exist_ok=True)
    for stem, content in files.items():
        if isinstance(content, list):
            rows = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in content]
            (folder / f"raw/{stem}.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        else:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / f"raw/{stem}.txt").write_bytes(data)
    ingest.run(config, Workspace(folder, folder))
    return [Chunk.from_row(row) for row in read_jsonl(folder / "data/d/chunks/chunks.jsonl")]


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/d/ingest/metrics.json").read_text())
    return found


def test_ready_chunks_keep_questions_and_order(tmp_path: Path) -> None:
    rows = [
        {"book": "B", "chapter": "1", "text": "One  two.", "questions": ["Who?", " "]},
        {"book": "B", "chapter": "1", "text": "Its seven words stay one ready chunk.", "questions": ["Why?"]},
        "broken",
        {"book": "B", "chapter": "2", "text": " "},
        {"book": "B", "chapter": "2", "text": "Three.", "questions": None},
        {"book": "C", "text": "Other."},
    ]
    assert run(tmp_path, book=rows) == [
        Chunk("book-0001", "book", "B", "1", 1, "One two.", ["Who?"], "book.jsonl:1"),
        Chunk("book-0002", "book", "B", "1", 2, "Its seven words stay one ready chunk.", ["Why?"], "book.jsonl:2"),
        Chunk("book-0005", "book", "B", "2", 3, "Three.", [], "book.jsonl:5"),
        Chunk("book-0006", "book", "C", "", 1, "Other.", [], "book.jsonl:6"),
    ]
    assert [(r["origin"], r["reason"]) for r in read_jsonl(tmp_path / "data/d/chunks/rejected.jsonl")] == [
        ("book.jsonl:3", "broken_record"),
        ("book.jsonl:4", "empty_text"),
    ]
    assert metrics(tmp_path) == {
        "num_chunks": 4,
        "num_chunks_by_kind": {"book": 4},
        "num_documents": 2,
        "num_kept": 4,
        "num_read": 6,
        "num_rejected": 2,
        "num_sections": 3,
        "num_with_questions": 2,
        "rejected": {"broken_record": 1, "empty_text": 1},
        "words": {"max": 7, "median": 2, "total": 11},
    }


def test_chapters_are_cut_and_numbers_run_through_the_book(tmp_path: Path) -> None:
    rows = [
        {"chapter": "I", "text": "One two three four. Five six\nseven eight.\n\nNine ten."},
        {"chapter": "II", "text": "Eleven twelve."},
    ]
    assert run(tmp_path, book=rows) == [
        Chunk("book-0001", "book", "book", "I", 1, "One two three four.", [], "book.jsonl:1"),
        Chunk("book-0002", "book", "book", "I", 2, "Five six seven eight.\n\nNine ten.", [], "book.jsonl:1"),
        Chunk("book-0003", "book", "book", "II", 3, "Eleven twelve.", [], "book.jsonl:2"),
    ]


def test_plain_text_with_headings(tmp_path: Path) -> None:
    config = replace(CONFIG, sources=[Source("roman.txt", "book")])
    chunks = run(tmp_path, config, roman="Глава 1\n\nОн пришёл. Она ушла.\n\nГлава 2\n\nКонец.\n")
    assert [(c.id, c.document, c.section, c.number, c.text) for c in chunks] == [
        ("book-0001", "roman", "Глава 1", 1, "Он пришёл. Она ушла."),
        ("book-0002", "roman", "Глава 2", 2, "Конец."),
    ]


def test_kinds_and_files_never_share_an_id(tmp_path: Path) -> None:
    sources = [Source(f"{stem}.jsonl", kind, {"text": "text"}) for stem, kind in
               [("a", "article"), ("b", "article"), ("i", "interview")]]  # fmt: skip
    row = [{"text": "Text."}]
    chunks = run(tmp_path, replace(CONFIG, sources=sources), a=row, b=row, i=row)
    assert [(c.id, c.document) for c in chunks] == [
        ("article-0001", "a"),
        ("article2-0001", "b"),
        ("interview_chunk-0001", "i"),  # interview-0001 is a question with its answer
    ]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no documents at all"):
        run(tmp_path, replace(CONFIG, sources=[]))
    with pytest.raises(DataError, match=r"raw/book\.jsonl: no such raw file"):
        run(tmp_path)
    with pytest.raises(DataError, match="no record was kept of 1 read"):
        run(tmp_path, book=[{"text": ""}])
    with pytest.raises(DataError, match=r"66\.7% of 3 records were rejected"):
        run(tmp_path, replace(CONFIG, max_rejected_share=0.1), book=[{"text": "a"}, "x", "y"])
    with pytest.raises(DataError, match="not UTF-8 at byte 0"):
        run(tmp_path, replace(CONFIG, sources=[Source("t.txt", "book")]), t="Да".encode("cp1251"))
    with pytest.raises(DataError, match="no record was kept"):
        run(tmp_path, replace(CONFIG, sources=[Source("t.txt", "book")]), t="\n\n")
    with pytest.raises(ConfigError, match=r"domain\.texts \(book\.jsonl\): fields\.text is missing"):
        run(tmp_path, replace(CONFIG, sources=[Source("book.jsonl", "book", {})]), book=[{"text": "a"}])


def test_a_real_novel_in_chapters(shared_data: Path, tmp_path: Path) -> None:
    fields = {"document": "book", "section": "part + title", "text": "text"}
    source = Source("books/verne_20000_leagues.en.chapters.jsonl", "book", fields)
    config = replace(CONFIG, raw_dir=str(shared_data), sources=[source], chunk_words=250)
    chunks = run(tmp_path, config)
    assert [c.number for c in chunks] == list(range(1, len(chunks) + 1))
    assert len({c.section for c in chunks}) == 46  # chapter numbers start again in part two
    assert max(len(c.text.split()) for c in chunks) <= 250
    raw = [row["text"] for row in read_jsonl(shared_data / source.path)]
    assert " ".join(c.text for c in chunks).split() == " ".join(raw).split()


def test_rerun_is_byte_identical(tmp_path: Path) -> None:
    outputs = []
    for _ in range(2):
        run(tmp_path, book=[{"text": "One two three four. Five six seven."}])
        outputs.append((tmp_path / "data/d/chunks/chunks.jsonl").read_bytes())
    assert outputs[0] == outputs[1]
