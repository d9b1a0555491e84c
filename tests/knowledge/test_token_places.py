from __future__ import annotations

import re
from collections.abc import Sequence

from stages.knowledge.token_places import STRETCH_CHARS, TokenPlaces


def words(texts: Sequence[str]) -> list[list[int]]:
    return [[match.start() for match in re.finditer(r"\w+|\n", text)] for text in texts]


def test_what_is_between_spans_counts_too() -> None:
    text = "one two\n\nthree four five"
    places = TokenPlaces(text, [(0, 7), (9, 24)], words)  # tokens at 0 4 7 7 9 15 20
    assert places.count(0, 7) == 2
    assert places.count(0, 9) == places.exact(text[:9]) == 4
    assert [places.reach(0, n, 24) for n in (1, 2, 3, 4, 5, 99)] == [4, 7, 7, 9, 15, 24]
    assert places.reach(0, 5, 12) == 12
    assert [places.reach_back(24, n) for n in (1, 3, 99)] == [20, 9, 0]
    assert places.exact("") == 0


def test_long_spans_are_tokenised_in_stretches() -> None:
    asked: list[int] = []

    def watching(texts: Sequence[str]) -> list[list[int]]:
        asked.extend(len(text) for text in texts)
        return words(texts)

    text = "word " * 20_000
    places = TokenPlaces(text, [(0, len(text))], watching)
    assert max(asked) <= STRETCH_CHARS
    assert sum(asked) == len(text)
    assert places.count(0, len(text)) == 20_000
