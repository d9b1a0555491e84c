"""A book's chunks, in reading order, and the part of it that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import floor

from stages.core.errors import DataError
from stages.knowledge.records import Chunk


def split_book(chunks: Sequence[Chunk], held_out_share: float) -> tuple[list[Chunk], list[Chunk]]:
    """(train, held out): the book's last whole sections, as few as hold at least this share of its chunks.

    Each document (a book) is split on its own, so that every book is in both parts. A document with a single
    section is cut inside it. Chunks of other kinds are left out. A share of 0 holds nothing out.
    Raises DataError where there is no book, or nothing would be left to train on.
    """
    book = sorted((c for c in chunks if c.kind == "book"), key=lambda c: (c.document, c.number))
    train: list[Chunk] = []
    held_out: list[Chunk] = []
    for _, members in groupby(book, key=lambda c: c.document):
        document = list(members)
        at = _cut(document, held_out_share)
        train += document[:at]
        held_out += document[at:]
    if not train:
        raise DataError(f"held_out_share {held_out_share}: no chunk of a book is left to train on ({len(book)} in all)")
    return train, held_out


def section_texts(chunks: Sequence[Chunk]) -> list[str]:
    """One text for each run of chunks of the same document and section, lines joined as they follow each other."""
    runs = groupby(chunks, key=lambda chunk: (chunk.document, chunk.section))
    return ["\n".join(chunk.text for chunk in run) for _, run in runs]


def _cut(document: list[Chunk], share: float) -> int:
    """Where the held-out part begins."""
    wanted = floor(len(document) * (1 - share) + 1e-9)  # at most so many chunks to train on
    starts = [n for n in range(1, len(document)) if document[n].section != document[n - 1].section]
    if share <= 0:
        return len(document)
    if not starts:
        return wanted
    return max((start for start in starts if start <= wanted), default=starts[0])
