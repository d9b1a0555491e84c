from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.schema import Embedder
from stages.evaluation.ablation import rank_by_variant
from stages.knowledge.records import Example, IndexRecord
from stages.retrieval.index import Index

EMBEDDER = Embedder(name="letters", package="none", dimension=26, max_tokens=9)
RECORDS = [
    IndexRecord("q1", "qa", "q1", "", 0, ["aaa"], "zzz"),
    IndexRecord("b1", "book", "book", "one", 1, ["aab", "ccc"], "ddd"),
    IndexRecord("b2", "book", "book", "one", 2, ["eee"], "aaaa"),
    IndexRecord("i1", "interview", "i1", "", 0, ["aaa"], "aaa"),
]


def letters(texts: list[str]) -> Any:
    """One dimension per letter."""
    counts = np.array([[text.count(chr(97 + n)) + 1e-3 for n in range(26)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class LetterEncoder:
    fingerprint = "letters"

    def encode_passages(self, texts: list[str]) -> Any:
        return letters(list(texts))


@pytest.fixture
def index() -> Index:
    vectors = letters([question for record in RECORDS for question in record.questions])
    entries = np.array([0, 1, 1, 2, 3], dtype=np.int32)
    return Index(RECORDS, vectors, entries, letters(["aaa"]), {"embed": "questions"})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts how often the encoder was loaded."""
    loaded: list[str] = []

    def load(embedder: Embedder) -> LetterEncoder:
        loaded.append(embedder.name)
        return LetterEncoder()

    monkeypatch.setattr("stages.retrieval.embedding.load_embedder", load)
    monkeypatch.setattr("stages.retrieval.embedder_files.embedder_fingerprint", lambda embedder: "letters")
    return loaded


def example(id_: str) -> Example:
    return Example(id_, "qa", "aaa", "zzz", [], [], "none", "g", "d", ["b1"])


def test_each_variant_finds_by_what_it_embeds(index: Index, loads: list[str], tmp_path: Path) -> None:
    found = rank_by_variant([example("q1")], index, ["book"], EMBEDDER, tmp_path)
    assert found == {
        "questions": {"q1": ["b1", "b2"]},  # aab is near
        "text": {"q1": ["b2", "b1"]},  # aaaa
        "answers": {"q1": ["b2", "b1"]},  # eee aaaa is nearer than aab ccc ddd
    }


def test_only_records_of_the_wanted_kinds_are_found(index: Index, loads: list[str], tmp_path: Path) -> None:
    found = rank_by_variant([example("q1")], index, ["book", "interview"], EMBEDDER, tmp_path)
    assert found["questions"] == {"q1": ["i1", "b1", "b2"]}


def test_embeddings_are_computed_once(index: Index, loads: list[str], tmp_path: Path) -> None:
    first = rank_by_variant([example("q1")], index, ["book"], EMBEDDER, tmp_path)
    assert loads == ["letters"] * 2
    assert rank_by_variant([example("q1")], index, ["book"], EMBEDDER, tmp_path) == first
    assert loads == ["letters"] * 2


def test_an_index_of_texts_gives_its_vectors_to_that_variant(index: Index, loads: list[str], tmp_path: Path) -> None:
    index.manifest["embed"] = "text"
    found = rank_by_variant([example("q1")], index, ["book"], EMBEDDER, tmp_path)
    assert found["text"] == {"q1": ["b1", "b2"]}
    assert found["questions"] == {"q1": ["b1", "b2"]}


def test_questions_outside_the_index_are_left_out(index: Index, loads: list[str], tmp_path: Path) -> None:
    found = rank_by_variant([example("q9"), example("b1")], index, ["book"], EMBEDDER, tmp_path)
    assert found == {"questions": {}, "text": {}, "answers": {}}
    assert loads == []
