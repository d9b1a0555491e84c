from __future__ import annotations

from stages.knowledge.records import IndexRecord
from stages.retrieval.documents import Document, join_siblings
from stages.retrieval.search import Hit


def hit(record: IndexRecord, distance: float) -> Hit:
    return Hit(record, distance, 1 - distance)


def numbers(document: Document) -> list[int]:
    return [record.number for record in document.records]


def chunk(number: int, document: str = "book") -> IndexRecord:
    return IndexRecord(f"{document}-{number}", "book", document, "Chapter 1", number, [], f"{document} {number}.")


def around(record: IndexRecord) -> list[IndexRecord]:
    return [chunk(number, record.document) for number in (record.number - 1, record.number, record.number + 1)]


def test_a_hit_is_joined_with_its_siblings_in_reading_order() -> None:
    (document,) = join_siblings([hit(chunk(31), 0.1)], around)
    assert document.text == "book 30.\nbook 31.\nbook 32."
    assert document.hit.id == "book-31"
    assert numbers(document) == [30, 31, 32]


def test_hits_that_share_a_chunk_become_one_document_at_the_nearer_place() -> None:
    hits = [hit(chunk(31), 0.1), hit(chunk(5, "other"), 0.2), hit(chunk(29), 0.3)]
    documents = join_siblings(hits, around)
    assert [(d.hit.id, numbers(d), d.distance) for d in documents] == [
        ("book-31", [28, 29, 30, 31, 32], 0.1),
        ("other-5", [4, 5, 6], 0.2),
    ]


def test_a_hit_between_two_documents_joins_them() -> None:
    hits = [hit(chunk(10), 0.1), hit(chunk(14), 0.2), hit(chunk(12), 0.3)]
    assert [numbers(d) for d in join_siblings(hits, around)] == [[9, 10, 11, 12, 13, 14, 15]]


def test_neighbouring_documents_without_a_shared_chunk_stay_apart() -> None:
    assert [numbers(d) for d in join_siblings([hit(chunk(13), 0.1), hit(chunk(10), 0.2)], around)] == [
        [12, 13, 14],
        [9, 10, 11],
    ]
