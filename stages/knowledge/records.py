"""The records that stages hand to each other.

A question with its answer (data/<domain>/clean/qa.jsonl):

    {"id": "qa-0017", "kind": "qa", "question": "Who is the founder of the mill Bako?",
     "answer": "...", "source_document": "Bako", "evidence": ["book-0031"], "cluster": "qa-0017",
     "flags": [], "origin": "qa.jsonl:17"}

A piece of connected text (data/<domain>/knowledge.sqlite):

    {"id": "book-0031", "kind": "book", "document": "book", "section": "Chapter 3", "number": 31,
     "text": "...", "questions": ["Who founded Bako?"], "origin": "book.jsonl:31"}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from stages.core.errors import DataError

QA_KINDS = ("qa", "boundary", "interview")
CHUNK_KINDS = ("book", "article", "interview")
SPLITS = ("train", "validation", "test")


class _Row:
    """Reading and writing of flat dataclasses as JSON rows."""

    def to_row(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # only dataclasses inherit

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Raises DataError naming unknown or missing keys."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if unknown := set(row) - known:
            raise DataError(f"record {row.get('id', '?')}: unknown keys {sorted(unknown)}")
        try:
            return cls(**row)
        except TypeError as error:
            raise DataError(f"record {row.get('id', '?')}: {error}") from error


@dataclass(frozen=True)
class QA(_Row):
    """One question and its answer, cleaned.

    source_document: what it was drawn from, for clustered intervals and grouped splits ("" where unknown).
    evidence: ids of the chunks that hold the answer, where somebody knows them.
    key_fact: what a right answer has to contain, in whatever words around it ("" where nobody says).
    cluster: id of the first record of its near-duplicate cluster (its own id where it has none).
    flags: `near_duplicate`, `quotes_chunk`, ...
    style: the manner of the answer, as a style of generate_sft or a source's `style` names it ("": nobody says).
    """

    id: str
    kind: str
    question: str
    answer: str
    source_document: str = ""
    evidence: list[str] = field(default_factory=list)
    cluster: str = ""
    flags: list[str] = field(default_factory=list)
    origin: str = ""
    key_fact: str = ""
    style: str = ""


@dataclass(frozen=True)
class Chunk(_Row):
    """A piece of a document; `number` runs through the document, so that number +- 1 are its siblings.

    section: the headings above it, outermost first, joined by " > ". page: counted from 1, None where the format has
    none. begin, end: offsets in characters into the document's text (0, 0 for a record that came as a chunk).
    """

    id: str
    kind: str
    document: str
    section: str
    number: int
    text: str
    questions: list[str] = field(default_factory=list)
    origin: str = ""
    page: int | None = None
    begin: int = 0
    end: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexRecord(_Row):
    """What search returns: a chunk, or a question with its answer (kind `qa` or `interview`).

    document, section, number: as in Chunk; for Q&A the document is the record itself and number 0.
    questions: what is embedded. text: what goes into the prompt (a chunk's text, an answer).
    """

    id: str
    kind: str
    document: str
    section: str
    number: int
    questions: list[str]
    text: str
    origin: str = ""


@dataclass(frozen=True)
class Example(_Row):
    """One training or evaluation example of the RAG-context data (data/<domain>/rag/{train,validation,test}.jsonl).

    documents: the texts in the prompt, in order; document_ids: the chunks they came from.
    documents_kind: retrieved | distracted | without_gold | none.
    group: id of the split group (unique answer, near-duplicate cluster and source joined).
    abstains: the answer is the prompt's `abstain` text, as no document holds the right one.
    """

    id: str
    kind: str
    question: str
    answer: str
    documents: list[str]
    document_ids: list[str]
    documents_kind: str
    group: str
    source_document: str = ""
    evidence: list[str] = field(default_factory=list)
    abstains: bool = False
    key_fact: str = ""
    style: str = ""

    def is_of(self, styles: Collection[str]) -> bool:
        """Whether its answer is in one of these manners; none named: in any."""
        return not styles or self.style in styles
