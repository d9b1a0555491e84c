"""From a question to the documents that go into its prompt: search, then siblings.

    hits       book #31 (distance 0.11), article #4 (distance 0.29)
    documents  book #30-32 joined, article #3-5 joined, in the order of their hits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.core.errors import DataError
from stages.core.schema import Embedder, Retrieval
from stages.core.workspace import Workspace
from stages.knowledge.records import IndexRecord

if TYPE_CHECKING:
    from stages.retrieval.search import Hit

SEPARATOR = "\n"  # between chunks of one document, as in the training data


@dataclass(frozen=True)
class Document:
    """One hit with its siblings. `records` are in reading order and contain the hit.

    distance: cosine distance of the hit; None where it was found by its words only.
    """

    hit: IndexRecord
    distance: float | None
    records: tuple[IndexRecord, ...]

    @property
    def ids(self) -> set[str]:
        return {record.id for record in self.records}

    @property
    def text(self) -> str:
        """What stands in the prompt."""
        return SEPARATOR.join(record.text for record in self.records)

    @property
    def numbers(self) -> str:
        """`30-32`, or `31` where the hit stands alone."""
        first, last = self.records[0].number, self.records[-1].number
        return str(first) if first == last else f"{first}-{last}"

    def to_row(self) -> dict[str, Any]:
        """As it stands in the JSON of an answer."""
        return {
            "id": self.hit.id,
            "kind": self.hit.kind,
            "document": self.hit.document,
            "section": self.hit.section,
            "number": self.hit.number,
            "distance": self.distance,
            "text": self.text,
        }


def join_siblings(hits: Sequence[Hit], siblings: Callable[[IndexRecord], list[IndexRecord]]) -> list[Document]:
    """One document for each hit; those that share a chunk become one, at the place and distance of the nearer.

    hits: nearest first. siblings: the chunks around a record, itself included, in reading order.
    """
    documents: list[Document] = []
    for hit in hits:
        found = Document(hit.record, hit.distance, tuple(siblings(hit.record)))
        touching = [document for document in documents if document.ids & found.ids]
        if not touching:
            documents.append(found)
            continue
        place = documents.index(touching[0])
        records = {record.id: record for document in [*touching, found] for record in document.records}
        in_order = tuple(sorted(records.values(), key=lambda record: record.number))
        documents = [document for document in documents if document not in touching]
        documents.insert(place, Document(touching[0].hit, touching[0].distance, in_order))
    return documents


class DocumentFinder:
    """Searches the index of one domain; embedder and index are loaded at the first question.

    num_siblings: chunks of the same section before and after each hit.
    """

    def __init__(
        self,
        workspace: Workspace,
        domain: str,
        embedder: Embedder,
        retrieval: Retrieval,
        kinds: list[str],
        top_k: int,
        max_distance: float,
        num_siblings: int,
    ) -> None:
        self.workspace, self.domain = workspace, domain
        self.embedder, self.retrieval = embedder, retrieval
        self.kinds, self.top_k, self.max_distance, self.num_siblings = kinds, top_k, max_distance, num_siblings
        self._searcher: Any = None
        self._encoder: Any = None

    def load(self) -> None:
        """Raises DataError where the index is missing, or was made with another embedder than the configured one."""
        if self._searcher is not None:
            return
        from stages.retrieval.embedding import load_embedder
        from stages.retrieval.index import Index
        from stages.retrieval.search import Searcher

        folder = self.workspace.read(f"data/{self.domain}/index")
        index = Index.load(folder)
        encoder = load_embedder(self.embedder)
        if index.manifest["embedder"] != encoder.fingerprint:
            raise DataError(
                f"{folder}: made with another embedder than {self.embedder.name} as configured now; "
                "run `dvc repro build_index`, or choose the embedder that it was made with"
            )
        self._encoder = encoder
        self._searcher = Searcher(index, self.retrieval, self.workspace.cache("stores"))

    @property
    def num_records(self) -> int:
        self.load()
        return len(self._searcher.index.records)

    def find(self, question: str) -> list[Document]:
        """The nearest records within `max_distance`, with their siblings; [] where nothing is near."""
        self.load()
        vectors = self._encoder.encode_queries([question])
        (hits,) = self._searcher.search(
            vectors, [question], self.top_k, kinds=self.kinds, max_distance=self.max_distance
        )
        return join_siblings(hits, self._siblings)

    def _siblings(self, record: IndexRecord) -> list[IndexRecord]:
        siblings: list[IndexRecord] = self._searcher.siblings(record, self.num_siblings, self.num_siblings)
        return siblings
