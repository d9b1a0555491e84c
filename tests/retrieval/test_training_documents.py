"""Documents chosen over an index of five chunks in two dimensions, where distances can be read off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.core.schema import Retrieval
from stages.knowledge.records import IndexRecord
from stages.retrieval.documents import Document, join_siblings
from stages.retrieval.index import Index
from stages.retrieval.search import Hit, Searcher
from stages.retrieval.training_documents import Choice, Chosen, Query, choose_documents

CHOICE = Choice(["book", "article"], 2, 0.35, 2, 0, 0.0, seed=1)
DEGREES = {"b1": 0, "b2": 80, "b3": 90, "b4": 10, "a1": 30, "qa": 0}


def record(name: str) -> IndexRecord:
    kind = {"b": "book", "a": "article", "q": "qa"}[name[0]]
    number = int(name[1]) if name[1].isdigit() else 0
    section = "two" if name == "b4" else "one"
    return IndexRecord(name, kind, kind, section, number, [name], f"Text {name}.")


def unit(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    vectors = np.stack([unit(angle) for angle in DEGREES.values()])
    entries = np.arange(len(DEGREES), dtype=np.int32)
    index = Index([record(name) for name in DEGREES], vectors, entries, np.zeros((0, 2), np.float32), {})
    return Searcher(index, Retrieval(store="faiss"), tmp_path)


def query(degrees: float = 0, **more: object) -> Query:
    return Query("qa-1", "Who?", "It is b1.", unit(degrees), **more)  # type: ignore[arg-type]


def ids(chosen: Chosen) -> list[list[str]]:
    return [document.ids for document in chosen.documents]


def test_hits_with_their_followers_and_never_a_question(searcher: Searcher) -> None:
    (chosen,) = choose_documents(searcher, [query()], CHOICE)
    assert chosen.kind == "retrieved"
    assert ids(chosen) == [["b1", "b2", "b3"], ["b4"]]  # b4 stands in another section
    assert chosen.documents[0].text == "Text b1.\nText b2.\nText b3."
    assert chosen.documents[0].distance == pytest.approx(0)
    assert chosen.need == [0, 1]


def test_nothing_near_enough(searcher: Searcher) -> None:
    assert choose_documents(searcher, [query(180)], CHOICE) == [Chosen("none")]
    assert choose_documents(searcher, [], CHOICE) == []


def test_hits_that_share_chunks_become_one_document(searcher: Searcher) -> None:
    (chosen,) = choose_documents(searcher, [query(90)], CHOICE)
    assert ids(chosen) == [["b2", "b3"]]


def test_a_quoting_chunk_is_passed_over_and_ends_what_follows(searcher: Searcher) -> None:
    (chosen,) = choose_documents(searcher, [query(quoting={"b1"})], CHOICE)
    assert ids(chosen) == [["b4"], ["a1"]]
    assert chosen.num_quoting == 1
    (chosen,) = choose_documents(searcher, [query(quoting={"b2"})], CHOICE)
    assert ids(chosen) == [["b1"], ["b4"]]
    assert chosen.num_quoting == 1


def test_distractors_hold_no_evidence_and_come_shuffled(searcher: Searcher) -> None:
    choice = replace(CHOICE, top_k=1, num_following=0, num_distractors=1)
    queries = [replace(query(evidence={"b4"}), id=f"qa-{n}") for n in range(20)]
    chosen = choose_documents(searcher, queries, choice)
    assert {c.kind for c in chosen} == {"distracted"}
    assert {tuple(map(tuple, ids(c))) for c in chosen} == {(("b1",), ("a1",)), (("a1",), ("b1",))}
    assert all(c.need[ids(c).index(["b1"])] == 0 for c in chosen)  # the right document is shortened last
    assert chosen == choose_documents(searcher, queries, choice)


def test_a_chunk_that_holds_the_answers_words_is_no_distractor(tmp_path: Path) -> None:
    texts = {
        "b1": "The founder is Lona.",
        "b4": "Lona was the founder.",
        "a1": "The founder is dead.",
        "b2": "The end.",
    }
    records = [replace(record(name), text=text) for name, text in texts.items()]
    vectors = np.stack([unit(DEGREES[name]) for name in texts])
    index = Index(records, vectors, np.arange(4, dtype=np.int32), np.zeros((0, 2), np.float32), {})
    choice = replace(CHOICE, top_k=1, num_following=0, num_distractors=2)
    question = replace(query(), question="Who is the founder?", answer="The founder is Lona.")
    (chosen,) = choose_documents(Searcher(index, Retrieval(store="faiss"), tmp_path), [question], choice)
    assert {i for document in ids(chosen) for i in document} == {"b1", "a1", "b2"}


def test_the_right_documents_are_withheld(searcher: Searcher) -> None:
    choice = replace(CHOICE, top_k=1, num_following=0, without_gold_share=1.0)
    (chosen,) = choose_documents(searcher, [query(evidence={"b1"})], choice)
    assert (chosen.kind, ids(chosen)) == ("without_gold", [["b4"]])
    (plain,) = choose_documents(searcher, [query(plain=True)], choice)
    assert (plain.kind, ids(plain)) == ("retrieved", [["b1"]])
    queries = [replace(query(), id=f"qa-{n}") for n in range(400)]
    some = choose_documents(searcher, queries, replace(choice, without_gold_share=0.25))
    assert sum(c.kind == "without_gold" for c in some) == pytest.approx(100, abs=30)


def test_join_siblings_and_what_is_left_of_a_document() -> None:
    def around(hit: IndexRecord) -> list[IndexRecord]:
        return [record(f"b{n}") for n in (hit.number, hit.number + 1)]

    hits = [Hit(record("b2"), 0.1, 0.9), Hit(record("b1"), 0.2, 0.8)]
    (document,) = join_siblings(hits, around)
    assert document == Document(record("b2"), 0.1, (record("b1"), record("b2"), record("b3")))
    assert document.ids_within(document.text) == ["b1", "b2", "b3"]
    assert document.ids_within("Text b1.\nText") == ["b1", "b2"]
    assert document.ids_within("Text b1.") == ["b1"]
    assert document.ids_within("") == []
