from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.schema import Embedder, Retrieval
from stages.core.workspace import Workspace
from stages.serving.answering import Answerer
from stages.serving.finding import DocumentFinder, document_row, numbers


def test_find_stops_at_the_section_and_at_the_distance(answerer: Answerer) -> None:
    (document,) = answerer.finder.find("About 4?")  # 5 is in the next chapter; the others are at distance 1
    assert [record.number for record in document.records] == [3, 4]
    assert document.distance == 0.0


def test_a_question_with_its_answer_has_no_siblings_and_is_not_repeated(answerer: Answerer) -> None:
    (document,) = answerer.finder.find("Who asks?")
    assert (document.hit.id, document.text, numbers(document)) == ("qa-1", "Nobody asks.", "0")


def test_nothing_near_gives_no_documents(answerer: Answerer) -> None:
    assert answerer.finder.find("About 7?") == []


def test_the_row_of_a_document(answerer: Answerer) -> None:
    (document,) = answerer.finder.find("About 1?")
    assert document_row(document) == {
        "id": "book-1",
        "kind": "book",
        "document": "book",
        "section": "Chapter 1",
        "number": 1,
        "distance": 0.0,
        "text": "Text 1.\nText 2.",
    }


def test_a_missing_index_says_how_to_build_it(tmp_path: Path) -> None:
    embedder = Embedder(name="none", package="none", dimension=8, max_tokens=8)
    finder = DocumentFinder(Workspace(tmp_path, tmp_path), "world", embedder, Retrieval(store="faiss"), [], 2, 0.5, 1)
    with pytest.raises(DataError, match=r"data/world/index.*dvc repro"):
        finder.find("About 1?")


def test_search_below_a_name_sees_no_other_document(answerer: Answerer) -> None:
    assert [document.hit.id for document in answerer.finder.find("About 1?", "book")] == ["book-1"]
    assert answerer.finder.find("Who asks?", "book") == []
    assert answerer.finder.find("About 1?", "books") == []
