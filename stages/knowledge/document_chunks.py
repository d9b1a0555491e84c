"""What was cut becomes chunks: ids, numbers, sections, and marks on text that tries to instruct a model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from stages.core.ledger import Ledger
from stages.core.schema import Source
from stages.knowledge.chunking import Piece
from stages.knowledge.injection import injection_in
from stages.knowledge.records import Chunk
from stages.knowledge.text_records import TextRecord, read_records

PATH_SEPARATOR = " > "
ID_HEX = 12  # of eight digits, one in a hundred collections of 10,000 documents would hold two that are the same


@dataclass(frozen=True)
class Counted:
    """A chunk and the number of its tokens; 0 where nobody had to count them, as it has fewer bytes than allowed."""

    chunk: Chunk
    num_tokens: int = 0


def marked(pieces: Iterable[Piece]) -> list[tuple[Any, ...]]:
    """Pieces as a cache can keep them, each with the patterns of `injection` in it: looking for those takes time."""
    return [(*astuple(piece), injection_in(piece.text)) for piece in pieces]


def document_chunks(name: str, kind: str, kept: Iterable[Sequence[Any]]) -> Iterator[Counted]:
    """The chunks of a document of whose pieces `marked` is kept.

    Their ids are made of its name and their number: other documents rename nothing.
    """
    prefix = f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:ID_HEX]}"
    for number, (*values, patterns) in enumerate(kept, start=1):
        piece = Piece(*values)
        chunk = Chunk(
            id=f"{prefix}-{number:04d}",
            kind=kind,
            document=name,
            section=PATH_SEPARATOR.join(piece.path),
            number=number,
            text=piece.text,
            origin=name if piece.page is None else f"{name}:{piece.page}",
            page=piece.page,
            begin=piece.begin,
            end=piece.end,
            metadata=_metadata(patterns),
        )
        yield Counted(chunk, piece.num_tokens)


def record_chunks(
    path: Path, source: Source, prefix: str, ledger: Ledger, cut: Callable[[TextRecord], list[Piece]]
) -> Iterator[Counted]:
    """The chunks of a file of records. Ids count through the file and numbers through each document in it.

    A rejected record uses up an id: mending it renames nothing.
    """
    place = 0
    numbers: Counter[str] = Counter()
    for record in read_records(path, source, ledger):
        for piece in cut(record) if record else [None]:
            place += 1
            if record is None or piece is None:
                continue
            numbers[record.document] += 1
            chunk = Chunk(
                id=f"{prefix}-{place:04d}",
                kind=source.kind,
                document=record.document,
                section=record.section,
                number=numbers[record.document],
                text=piece.text,
                questions=record.questions,
                origin=record.origin,
                begin=piece.begin,
                end=piece.end,
                metadata=_metadata(injection_in(piece.text)),
            )
            yield Counted(chunk, piece.num_tokens)


def _metadata(patterns: str) -> dict[str, Any]:
    return {"injection": patterns} if patterns else {}
