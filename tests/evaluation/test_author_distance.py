from __future__ import annotations

import random

import pytest

from stages.core.errors import DataError
from stages.evaluation.author_distance import AuthorDistance, other_pieces

SHORT = ["go", "now", "and", "do", "it", "then", "stop"]
LONG = ["perhaps", "one", "might", "consider", "whether", "that", "would", "suffice"]


def passages(words: list[str], count: int, seed: int, length: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=length)) for _ in range(count)]


AUTHOR = AuthorDistance.of(passages(SHORT, 20, 0), passages(SHORT, 8, 1))
HALVES = [0, 1, 0, 1, 0, 1]


def test_imitation_lies_at_the_ceiling_and_another_author_far_below() -> None:
    lengths = [40] * 6
    own = AUTHOR.distance(AUTHOR.own_pieces(lengths, HALVES), HALVES)
    imitation = AUTHOR.distance(passages(SHORT, 6, 2, 40), HALVES)
    other = AUTHOR.distance(other_pieces(passages(LONG, 3, 3), lengths), HALVES)
    assert imitation.value == pytest.approx(own.value, abs=0.02)
    assert own.high is not None and other.low is not None
    assert own.high < 0.1 < 0.8 < other.low
    assert own.n == 6


def test_answers_are_never_compared_with_their_own_half() -> None:
    one, two = passages(SHORT, 4, 4), passages(LONG, 4, 5)
    author = AuthorDistance.of(one + two, one + two)
    assert [author.half_of(number) for number in range(8)] == [0] * 4 + [1] * 4
    assert author.distance([*one[:2], *two[:2]], [0, 0, 1, 1]).value > 0.8  # parroting gains nothing
    assert author.distance([*one[:2], *two[:2]], [1, 1, 0, 0]).value < 0.1


def test_pieces_have_the_lengths_asked_for_and_come_from_their_half() -> None:
    author = AuthorDistance.of(["x y"], ["a1 a2 a3 a4", "b1 b2 b3 b4", "c1 c2 c3 c4", "d1 d2 d3 d4"])
    assert author.own_pieces([2, 2, 2, 2, 9], [0, 0, 0, 1, 1]) == ["a1 a2", "b1 b2", "a3 a4", "c1 c2", "d1 d2 d3 d4"]
    assert other_pieces(["a, b! c"], [2, 1]) == ["a, b", "b"]


def test_empty_answers_have_nothing_in_common() -> None:
    assert AUTHOR.distance([""] * 6, HALVES).value == 1.0


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(DataError, match="3 held-out passages"):
        AuthorDistance.of(["x"], ["a", "b", "c"])
    with pytest.raises(DataError, match="at least 2 in each half"):
        AUTHOR.distance(["go now", "do it", "stop"], [0, 0, 1])
