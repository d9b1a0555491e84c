"""`groundtune kb` over a small knowledge base; what the encoder would do is tested with the search."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.workspace import Workspace
from stages.knowledge.kb_edits import Edit, read_edits, text_sha256
from stages.knowledge.knowledge_base import DocumentRow, read_chunks, write_knowledge
from stages.knowledge.records import Chunk
from stages.serving.kb_command import knowledge_app

DOCUMENTS = [
    DocumentRow("docs/mills.pdf", "book", "Mills", "pdf", "ab", 1000, 2, 90, [2], {"author": "Lona Tir"}),
    DocumentRow("docs/notes.txt", "book", "notes", "txt", "ef", 10, 0, 20),
    DocumentRow("docs/scan.pdf", "book", "", "pdf", "cd", 2000, 1, 0, reason="no_text", detail="a scan"),
]
CHUNKS = [
    Chunk("book-0a-0001", "book", "docs/mills.pdf", "Mills > Bako", 1, "Bako is a mill.", ["What is Bako?"], "", 1),
    Chunk("book-0a-0002", "book", "docs/mills.pdf", "Mills > Bako", 2, "It ground\ncorn.", page=2),
    Chunk("book-0a-0003", "book", "docs/mills.pdf", "Mills > Tir", 3, "A \x1b[31mred wheel, which turns."),
    Chunk("book-0b-0001", "book", "docs/notes.txt", "", 1, "Corn grows here."),
]
EMBEDDER = {"name": "x", "path": "x", "dimension": 2, "max_tokens": 9}
Run = Callable[..., Result]


def section(**changes: Any) -> dict[str, Any]:
    domain = {"name": "d", "language": "en", "raw_dir": "raw", "curation_dir": "data/d/curation"}
    return {"domain": {**domain, "texts": [{"path": "docs", "kind": "book"}], **changes}, "embedder": EMBEDDER}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ingest(tmp_path)
    return tmp_path


def ingest(root: Path) -> None:
    """What the stage does in the end."""
    edits = read_edits(root / "data/d/curation/edits.jsonl")
    write_knowledge(root / "data/d/knowledge.sqlite", DOCUMENTS, CHUNKS, edits)


@pytest.fixture
def run(root: Path) -> Run:
    return runner(root, section())


def runner(root: Path, params: dict[str, Any]) -> Run:
    app = typer.Typer(cls=Commands)
    app.add_typer(knowledge_app(lambda domain: params, Workspace(root, root)), name="kb")
    return lambda *arguments: CliRunner().invoke(app, ["kb", *arguments])


def edits_of(root: Path) -> list[Edit]:
    return read_edits(root / "data/d/curation/edits.jsonl")


def test_list_says_what_became_of_each_document(run: Run) -> None:
    assert run("list").stdout.splitlines() == [
        "read      book            3  docs/mills.pdf  1 pages not read",
        "read      book            1  docs/notes.txt",
        "rejected  book            0  docs/scan.pdf  no_text: a scan",
        "3 documents, 2 read, 0 edited, 1 rejected, 4 chunks, 0 edited chunks, 0 pending edits, 0 orphaned edits",
    ]
    assert run("list", "docs/n").stdout.startswith("read      book            1  docs/notes.txt\n1 documents")
    assert "scan" not in run("list", "--state", "read").stdout
    rows = json.loads(run("list", "--json").stdout)["documents"]
    assert [(row["name"], row["state"], row["num_chunks"]) for row in rows] == [
        ("docs/mills.pdf", "read", 3),
        ("docs/notes.txt", "read", 1),
        ("docs/scan.pdf", "rejected", 0),
    ]


def test_show_a_document_and_a_chunk(run: Run) -> None:
    shown = run("show", "docs/mills.pdf").stdout
    assert "title Mills" in shown and "failed_pages [2]" in shown
    assert "book-0a-0002  Mills > Bako, page 2\n    It ground corn." in shown
    shown = run("show", "book-0a-0002").stdout
    assert shown.splitlines()[0] == "book-0a-0002  docs/mills.pdf  Mills > Bako, page 2"
    assert "(book-0a-0001) Bako is a mill." in shown and "It ground\ncorn." in shown
    assert "\x1b" not in shown
    row = json.loads(run("show", "book-0a-0001", "--around", "2", "--json").stdout)
    assert [near["id"] for near in row["siblings"]] == ["book-0a-0002", "book-0a-0003"]
    assert (row["text"], row["original"], row["history"]) == ("Bako is a mill.", "Bako is a mill.", [])
    assert "no_text" in run("show", "docs/scan.pdf").stdout
    missing = run("show", "nothing")
    assert missing.exit_code == 1 and "nothing: no chunk has this id" in missing.stderr


def test_search_marks_words_and_obeys_filters(run: Run) -> None:
    assert run("search", "grounds corn").stdout.splitlines() == [
        "[1] book-0a-0002  docs/mills.pdf  Mills > Bako, page 2",
        "    It ground corn.",
        "[2] book-0b-0001  docs/notes.txt",
        "    Corn grows here.",
    ]
    found = json.loads(run("search", "corn", "--document", "docs/m", "--json").stdout)
    assert [(hit["id"], hit["snippet"]) for hit in found] == [
        ("book-0a-0002", {"text": "It ground corn.", "marks": [[10, 14]]})
    ]
    assert "\x1b" not in run("search", "wheel").stdout
    nothing = run("search", "zebra OR (")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "nothing found\n")
    assert run("search", "corn", "--mode", "all").exit_code == 2


def test_an_edit_is_pending_until_ingest_and_can_be_undone(run: Run, root: Path) -> None:
    done = run("edit", "book-0a-0001", "--text", "Bako was a mill.", "--note", "it burned down")
    assert done.exit_code == 0, done.output
    assert "-Bako is a mill.\n+Bako was a mill.\n" in done.stdout and "`dvc repro`" in done.stderr
    (edit,) = edits_of(root)
    assert (edit.chunk, edit.text, edit.note) == ("book-0a-0001", "Bako was a mill.", "it burned down")
    assert edit.original_sha256 == text_sha256("Bako is a mill.") and edit.at.endswith("Z")
    assert "edited    book            3  docs/mills.pdf  1 pending" in run("list").stdout
    shown = run("show", "book-0a-0001").stdout
    assert f"{edit.at}  pending  it burned down" in shown and "\n+Bako was a mill." in shown

    ingest(root)
    assert "edited    book            3  docs/mills.pdf  1 edited" in run("list").stdout
    assert f"{edit.at}  applied  it burned down" in run("show", "book-0a-0001").stdout
    run("edit", "book-0a-0001", "--text", "Bako is gone.")
    assert run("edit", "book-0a-0001", "--undo").exit_code == 0
    assert edits_of(root)[-1].text == "Bako is a mill."
    again = run("edit", "book-0a-0001", "--undo")
    assert again.exit_code == 1 and "there is no edit to undo" in again.stderr
    ingest(root)
    assert read_chunks(root / "data/d/knowledge.sqlite") == CHUNKS
    assert "0 edited chunks, 0 pending edits, 0 orphaned" in run("list").stdout


def test_orphaned_edits_are_listed(run: Run, root: Path) -> None:
    run("edit", "book-0a-0001", "--text", "Bako was a mill.")
    write_knowledge(root / "data/d/knowledge.sqlite", DOCUMENTS, CHUNKS[1:], edits_of(root))
    assert "orphaned edit of book-0a-0001" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)["orphaned"][0]["text"] == "Bako was a mill."


def test_the_new_text_may_come_from_a_file_or_an_editor(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "new.txt").write_bytes("\ufeffЁлка.\r\nOld.\n".encode())
    assert run("edit", "book-0b-0001", "--file", str(root / "new.txt")).exit_code == 0
    assert edits_of(root)[-1].text == "Ёлка.\nOld."
    monkeypatch.setenv("EDITOR", "sed -i s/Old/New/")
    monkeypatch.delenv("VISUAL", raising=False)
    assert run("edit", "book-0b-0001").exit_code == 0
    assert edits_of(root)[-1].text == "Ёлка.\nNew."
    monkeypatch.setenv("EDITOR", "true")
    unchanged = run("edit", "book-0b-0001")
    assert unchanged.exit_code == 1 and "nothing was changed" in unchanged.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["book-9-0001", "--text", "x"], 1, "book-9-0001: no chunk has this id"),
        (["book-0a-0001", "--text", "  "], 1, "the new text is empty"),
        (["book-0a-0001", "--text", "Bako is a mill. "], 1, "this is its text already"),
        (["book-0a-0001", "--file", "/no/such/file"], 2, "does not exist"),
        (["book-0a-0001", "--text", "x", "--undo"], 2, "give one of"),
    ],
)
def test_an_edit_that_cannot_be_made_is_not(
    run: Run, root: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    result = run("edit", *arguments)
    assert (result.exit_code, message in result.stderr) == (exit_code, True), result.stderr
    assert edits_of(root) == []


def test_add_copies_into_the_folder_of_documents(run: Run, root: Path) -> None:
    (root / "new.pdf").write_bytes(b"%PDF-1")
    (root / "other").mkdir()
    (root / "other/new.pdf").write_bytes(b"%PDF-2")
    assert "added: " in run("add", str(root / "new.pdf")).stderr
    assert (root / "raw/docs/new.pdf").read_bytes() == b"%PDF-1"
    assert "there already: " in run("add", str(root / "new.pdf")).stderr
    taken = run("add", str(root / "other/new.pdf"))
    assert taken.exit_code == 1 and "--replace takes its place" in taken.stderr
    assert run("add", str(root / "other/new.pdf"), "--replace").exit_code == 0
    assert (root / "raw/docs/new.pdf").read_bytes() == b"%PDF-2"
    assert run("add", str(root / "new.pdf"), "--to", "docs/legal").exit_code == 0
    assert (root / "raw/docs/legal/new.pdf").exists()
    for arguments in (
        ["--to", "elsewhere"],
        ["--to", "docs/../.."],
        ["--to", "/tmp"],
        [str(root / "other")],
        [str(root / "none")],
    ):
        assert run("add", str(root / "new.pdf"), *arguments).exit_code == 1


def test_add_is_refused_where_a_stage_writes_the_documents(root: Path) -> None:
    (root / "new.pdf").write_bytes(b"%PDF-1")
    refused = runner(root, section(generators={"documents": {}}))("add", str(root / "new.pdf"))
    assert refused.exit_code == 1 and "written by `make_demo`" in refused.stderr
    refused = runner(root, section(texts=[{"path": "book.jsonl", "kind": "book"}]))("add", str(root / "new.pdf"))
    assert refused.exit_code == 1 and "names no folder of documents" in refused.stderr


def test_export(run: Run, root: Path) -> None:
    rows = [json.loads(line) for line in run("export").stdout.splitlines()]
    assert [Chunk.from_row(row) for row in rows] == CHUNKS
    table = list(csv.DictReader(io.StringIO(run("export", "--format", "csv", "--document", "docs/m").stdout)))
    assert [(row["id"], row["page"], row["text"]) for row in table] == [
        ("book-0a-0001", "1", "Bako is a mill."),
        ("book-0a-0002", "2", "It ground\ncorn."),
        ("book-0a-0003", "", "A \x1b[31mred wheel, which turns."),
    ]
    assert run("export", "--format", "markdown", "--out", str(root / "out/all.md")).stdout == ""
    assert (root / "out/all.md").read_text().startswith("# docs/mills.pdf\n\n## Mills > Bako\n\nBako is a mill.\n\nIt ")


def test_a_missing_knowledge_base_says_how_to_get_it(root: Path) -> None:
    missing = runner(root, section(name="other"))("list")
    assert missing.exit_code == 1 and "run `dvc repro` to build it" in missing.stderr
