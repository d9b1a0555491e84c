"""From hits to the documents of a prompt: each hit with its neighbours, in reading order.

hits       book #31 (distance 0.11), article #4 (distance 0.29)
documents  book #30-32 joined, article #3-5 joined, in the order of their hits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.knowledge.records import IndexRecord
from stages.retrieval.search import Hit

SEPARATOR = "\n"  # between chunks of one document


@dataclass(frozen=True)
class Document:
    """One hit with its siblings. `records` are in reading order and contain the hit.

    distance: cosine distance between the question and the hit.
    """

    hit: IndexRecord
    distance: float
    records: tuple[IndexRecord, ...]

    @property
    def ids(self) -> list[str]:
        return [record.id for record in self.records]

    @property
    def text(self) -> str:
        """What stands in the prompt."""
        return SEPARATOR.join(record.text for record in self.records)

    def ids_within(self, text: str) -> list[str]:
        """The records that still stand in `text`, the beginning of this document's text."""
        starts = [len(SEPARATOR.join(record.text for record in self.records[:n])) for n in range(len(self.records))]
        return [record_id for record_id, start in zip(self.ids, starts, strict=True) if start < len(text)]


def join_siblings(hits: Sequence[Hit], siblings: Callable[[IndexRecord], Sequence[IndexRecord]]) -> list[Document]:
    """One document for each hit; those that share a chunk become one, at the place and distance of the nearer.

    hits: nearest first. siblings: the chunks around a record, itself included, in reading order.
    """
    documents: list[Document] = []
    for hit in hits:
        found = Document(hit.record, hit.distance, tuple(siblings(hit.record)))
        touching = [document for document in documents if set(document.ids) & set(found.ids)]
        if not touching:
            documents.append(found)
            continue
        place = documents.index(touching[0])
        records = {record.id: record for document in [*touching, found] for record in document.records}
        in_order = tuple(sorted(records.values(), key=lambda record: record.number))
        documents = [document for document in documents if document not in touching]
        documents.insert(place, Document(touching[0].hit, touching[0].distance, in_order))
    return documents
