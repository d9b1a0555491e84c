"""The index on disk: what is embedded, what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.core.schema import Embedder
from stages.knowledge.records import IndexRecord
from stages.retrieval import index as index_module
from stages.retrieval.index import Index, flatten, texts_of


def record(record_id: str, questions: list[str], text: str = "A text.", kind: str = "book") -> IndexRecord:
    return IndexRecord(record_id, kind, "book", "Chapter 1", 1, questions, text)


@pytest.fixture
def small() -> Index:
    """Three records: a question (1 vector) and two chunks (2 and 1)."""
    records = [record("qa-1", ["q"], kind="qa"), record("book-1", ["q", "r"]), record("book-2", ["s"])]
    vectors = np.eye(4, dtype=np.float32)
    return Index(records, vectors, np.array([0, 1, 1, 2], dtype=np.int32), vectors[3:], {})


def written(index: Index, folder: Path) -> Path:
    folder.mkdir()
    index.write(folder, {"embedder": "fake", "embedder_fingerprint": "f"})
    return folder


@pytest.mark.parametrize(
    ("embed", "without_questions", "expected"),
    [
        ("questions", "text", ["Who?", "What?"]),
        ("questions", "reject", ["Who?", "What?"]),
        ("text", "text", ["It is."]),
        ("answers", "text", ["Who?\nWhat?\nIt is."]),
    ],
)
def test_what_is_embedded(embed: str, without_questions: str, expected: list[str]) -> None:
    chunk = record("book-1", [" Who?", "What?", "", "Who? "], " It is. ")
    assert texts_of(chunk, embed, without_questions) == expected


def test_a_record_without_questions() -> None:
    chunk = record("book-1", [" "], "It is.")
    assert texts_of(chunk, "questions", "text") == ["It is."]
    assert texts_of(chunk, "questions", "reject") == []
    assert texts_of(record("book-1", [], " "), "text") == []
    with pytest.raises(ValueError, match="embed: 'all'"):
        texts_of(chunk, "all")


def test_flatten_numbers_the_texts() -> None:
    texts, entries = flatten([["a", "b"], [], ["c"]])
    assert texts == ["a", "b", "c"]
    assert entries.tolist() == [0, 0, 2]
    assert entries.dtype == np.int32


def test_comes_back_as_written(small: Index, tmp_path: Path) -> None:
    loaded = Index.load(written(small, tmp_path / "index"))
    assert loaded.records == small.records
    np.testing.assert_array_equal(loaded.vectors, small.vectors)
    np.testing.assert_array_equal(loaded.vectors_of("book-1"), np.eye(4)[1:3])
    np.testing.assert_array_equal(loaded.query_vector("qa-1"), np.eye(4)[3])
    assert loaded.record("book-2").questions == ["s"]
    assert ("book-2" in loaded, "book-3" in loaded) == (True, False)
    assert {k: loaded.manifest[k] for k in ("format", "num_records", "num_vectors", "num_queries", "dimension")} == {
        "format": 1,
        "num_records": 3,
        "num_vectors": 4,
        "num_queries": 1,
        "dimension": 4,
    }
    assert loaded.hash == small.hash
    with pytest.raises(KeyError, match="book-1 is no Q&A record"):
        loaded.query_vector("book-1")


@pytest.mark.parametrize("name", ["records.jsonl", "vectors.npy", "entries.npy", "queries.npy"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_noticed(small: Index, tmp_path: Path, name: str, damage: str) -> None:
    path = written(small, tmp_path / "index") / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-3])
    with pytest.raises(DataError, match=f"{name}: missing or changed.*dvc repro"):
        Index.load(path.parent)


@pytest.mark.parametrize(
    ("manifest", "message"), [(None, "missing"), ("{", "broken"), ('{"format": 99}', "format 99, this version reads 1")]
)
def test_unreadable_manifest_is_refused(small: Index, tmp_path: Path, manifest: str | None, message: str) -> None:
    path = written(small, tmp_path / "index") / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    with pytest.raises(DataError, match=message):
        Index.load(path.parent)


def test_another_embedder_is_refused(small: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(small, tmp_path / "index")
    monkeypatch.setattr(index_module, "embedder_fingerprint", lambda embedder: embedder.name)
    assert Index.load(folder, Embedder(name="f", path="x", dimension=4, max_tokens=8)).records == small.records
    with pytest.raises(DataError, match="built with embedder fake, but the embedder in use is g"):
        Index.load(folder, Embedder(name="g", path="x", dimension=4, max_tokens=8))


@pytest.mark.parametrize("entries", [[0, 1, 1], [1, 0, 1, 2], [0, 0, 2, 2], [0, 1, 2, 3]])
def test_entries_that_do_not_fit_are_refused(small: Index, entries: list[int]) -> None:
    with pytest.raises(ValueError, match="entries"):
        Index(small.records, small.vectors, np.array(entries, dtype=np.int32), small.queries, {})


def test_ids_are_unique(small: Index) -> None:
    with pytest.raises(DataError, match="same id"):
        Index([small.records[0]] * 3, small.vectors, small.entries, small.queries, {})
