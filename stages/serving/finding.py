"""From a question to the documents that go into its prompt: search, then siblings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stages.core.schema import Embedder, Retrieval
from stages.core.workspace import Workspace
from stages.knowledge.records import IndexRecord
from stages.retrieval.documents import Document, join_siblings
from stages.retrieval.embedding import Encoder, Float32

if TYPE_CHECKING:
    from stages.retrieval.search import Hit

SPARE = 4  # hits looked at for each that is wanted, as some repeat a text
NUM_RESTRICTIONS = 64  # whose records are remembered; clients make them up


def numbers(document: Document) -> str:
    """`30-32`, or `31` where the hit stands alone."""
    first, last = document.records[0].number, document.records[-1].number
    return str(first) if first == last else f"{first}-{last}"


def document_row(document: Document) -> dict[str, Any]:
    """As a document stands in the JSON of an answer: where its hit comes from, and all of its text."""
    hit = document.hit
    return {
        "id": hit.id,
        "kind": hit.kind,
        "document": hit.document,
        "section": hit.section,
        "number": hit.number,
        "distance": document.distance,
        "text": document.text,
    }


@dataclass(frozen=True)
class Wanted:
    """What is looked for. num_siblings: chunks of the same section before and after each hit. below: only chunks of
    documents whose names begin so. sources: only records of these kinds or documents; () is all."""

    top_k: int
    max_distance: float
    num_siblings: int
    below: str = ""
    sources: tuple[str, ...] = ()


class DocumentFinder:
    """Searches the index of one domain; embedder and index are loaded at the first question.

    top_k, max_distance, num_siblings: what `find` wants, as in `Wanted`.
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
        self._filter: list[str] | None = kinds
        self._searcher: Any = None
        self._encoder: Any = None
        self._excluded: dict[tuple[str, tuple[str, ...]], frozenset[str]] = {}

    def load(self) -> None:
        """Raises DataError where the index is missing, or was made with another embedder than the configured one."""
        if self._searcher is not None:
            return
        from stages.retrieval.embedding import load_embedder
        from stages.retrieval.index import Index
        from stages.retrieval.search import Searcher

        index = Index.load(self.workspace.read(f"data/{self.domain}/index"), self.embedder)
        if all(record.kind in self.kinds for record in index.records):
            self._filter = None  # Chroma takes twenty times as long where it has to filter
        self._encoder = load_embedder(self.embedder)
        self._searcher = Searcher(index, self.retrieval, self.workspace.cache("stores"))

    @property
    def num_records(self) -> int:
        self.load()
        return len(self._searcher.index.records)

    def find(self, question: str, below: str = "") -> list[Document]:
        """`find_near` for one question, as configured."""
        wanted = Wanted(self.top_k, self.max_distance, self.num_siblings, below)
        return self.find_near([question], self.encoder.encode_queries([question]), wanted)[0]

    @property
    def encoder(self) -> Encoder:
        """The one that the index was made with."""
        self.load()
        encoder: Encoder = self._encoder
        return encoder

    def find_near(self, questions: Sequence[str], vectors: Float32, wanted: Wanted) -> list[list[Document]]:
        """For each question the nearest records within `max_distance`, with their siblings; [] where nothing is near.

        vectors: float32[Q, D], the questions' by `encoder`. Of records with the same text only the nearest counts: two
        questions often share an answer.
        """
        self.load()
        found = self._searcher.search(
            vectors,
            questions,
            wanted.top_k * SPARE,
            kinds=self._filter,
            max_distance=wanted.max_distance,
            exclude=[self._outside(wanted)] * len(questions) if wanted.below or wanted.sources else None,
        )
        return [self._documents(hits, wanted) for hits in found]

    def _documents(self, hits: Sequence[Hit], wanted: Wanted) -> list[Document]:
        distinct = {hit.record.text: hit for hit in reversed(hits)}  # the nearest is written last
        nearest = [hit for hit in hits if distinct[hit.record.text] is hit]
        return join_siblings(nearest[: wanted.top_k], lambda record: self._siblings(record, wanted.num_siblings))

    @cached_property
    def sources(self) -> frozenset[str]:
        """What `Wanted.sources` may name: kinds, and the documents of those kinds."""
        self.load()
        records = self._searcher.index.records
        return frozenset(self.kinds) | {record.document for record in records if record.kind in self.kinds}

    def _outside(self, wanted: Wanted) -> frozenset[str]:
        """Ids of all records that are not below `wanted.below`, or of none of its sources."""
        key = wanted.below, wanted.sources
        if key not in self._excluded:
            if len(self._excluded) >= NUM_RESTRICTIONS:
                self._excluded.clear()
            records = self._searcher.index.records
            self._excluded[key] = frozenset(record.id for record in records if not _is_within(record, wanted))
        return self._excluded[key]

    def _siblings(self, record: IndexRecord, num: int) -> list[IndexRecord]:
        siblings: list[IndexRecord] = self._searcher.siblings(record, num, num)
        return siblings


def _is_within(record: IndexRecord, wanted: Wanted) -> bool:
    named = not wanted.sources or record.kind in wanted.sources or record.document in wanted.sources
    return named and record.document.startswith(wanted.below)
