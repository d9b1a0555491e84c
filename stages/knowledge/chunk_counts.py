"""What there is to say about chunks in numbers, counted while they go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stages.knowledge.document_chunks import Counted
from stages.knowledge.knowledge_base import Applied, DocumentRow
from stages.knowledge.records import Chunk


class ChunkCounts:
    """counts = ChunkCounts(); write(counts.counting(chunks)); counts.metrics()"""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._documents: set[tuple[str, str]] = set()
        self._sections: set[tuple[str, str, str]] = set()
        self._num_with_questions = 0
        self._words: list[int] = []
        self._tokens: list[int] = []
        self._injections: dict[str, str] = {}

    def counting(self, chunks: Iterable[Counted]) -> Iterator[Chunk]:
        """The chunks as they are."""
        for counted in chunks:
            chunk = counted.chunk
            self._kinds[chunk.kind] += 1
            self._documents.add((chunk.kind, chunk.document))
            self._sections.add((chunk.kind, chunk.document, chunk.section))
            self._num_with_questions += bool(chunk.questions)
            self._words.append(len(chunk.text.split()))
            if counted.num_tokens:
                self._tokens.append(counted.num_tokens)
            if "injection" in chunk.metadata:
                self._injections[chunk.id] = chunk.metadata["injection"]
            yield chunk

    def metrics(self) -> dict[str, Any]:
        """tokens: of chunks whose tokens were counted. injections: which chunks try to instruct a model, and how."""
        return {
            "num_chunks": self._kinds.total(),
            "num_chunks_by_kind": dict(sorted(self._kinds.items())),
            "num_documents": len(self._documents),
            "num_sections": len(self._sections),
            "num_with_questions": self._num_with_questions,
            "words": _spread(self._words),
            "tokens": _spread(self._tokens),
            "num_flagged_injection": len(self._injections),
            "injections": self._injections,
        }


def page_counts(rows: Sequence[DocumentRow]) -> dict[str, Any]:
    """failed_pages: of each document that has any, their numbers."""
    failed = {row.name: row.failed_pages for row in rows if row.failed_pages}
    return {
        "num_pages": sum(row.num_pages for row in rows),
        "num_failed_pages": sum(map(len, failed.values())),
        "failed_pages": failed,
    }


def edit_counts(applied: Applied) -> dict[str, Any]:
    """orphaned_edits: the chunks of edits whose text is gone."""
    return {
        "num_edits_applied": applied.num_applied,
        "num_edits_orphaned": len(applied.orphaned),
        "orphaned_edits": [edit.chunk for edit in applied.orphaned],
    }


def _spread(numbers: list[int]) -> dict[str, int]:
    ordered = sorted(numbers)
    middle = {"median": ordered[len(ordered) // 2], "max": ordered[-1]} if ordered else {"median": 0, "max": 0}
    return {"num_counted": len(ordered), "total": sum(ordered), **middle}
