from __future__ import annotations

import pytest

from stages.core.errors import DataError
from stages.knowledge.book import split_book
from stages.knowledge.records import Chunk


def book(sections: str, document: str = "b", kind: str = "book") -> list[Chunk]:
    """One chunk for each letter, which names its section."""
    return [Chunk(f"{document}-{n}", kind, document, s, n, f"{document}{n}") for n, s in enumerate(sections, start=1)]


@pytest.mark.parametrize(
    ("sections", "share", "held_out"),
    [
        ("aaaabbbbcc", 0.15, 2),  # the last section is enough
        ("aaaabbbbcc", 0.2, 2),
        ("aaaabbbbcc", 0.25, 6),  # it is not: the one before goes too, whole
        ("aaaaabbbbb", 0.9, 5),  # the first section is never held out
        ("aaaaaaaaaa", 0.2, 2),  # a single section is cut inside
        ("aaaabbbbcc", 0.0, 0),
    ],
)
def test_last_whole_sections_are_held_out(sections: str, share: float, held_out: int) -> None:
    chunks = book(sections)
    train, held = split_book(chunks[::-1], share)
    assert train == chunks[: len(chunks) - held_out]
    assert held == chunks[len(chunks) - held_out :]


def test_each_book_is_split_and_articles_are_left_out() -> None:
    train, held = split_book([*book("ab", "one"), *book("aabb", "two"), *book("a", "x", kind="article")], 0.1)
    assert [c.id for c in train] == ["one-1", "two-1", "two-2"]
    assert [c.id for c in held] == ["one-2", "two-3", "two-4"]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="no chunk of a book"):
        split_book(book("a", kind="article"), 0.1)
    with pytest.raises(DataError, match="no chunk of a book"):
        split_book(book("a"), 1.0)
