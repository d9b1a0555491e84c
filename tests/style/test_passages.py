from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.style.passages import CHAPTER_BREAK, PARAGRAPH, SCENE, PassageSize, cut, units_of


def word_starts(texts: Sequence[str]) -> list[list[int]]:
    """A token a word."""
    return [[match.start() for match in re.finditer(r"\S+", text)] for text in texts]


def prose(num_words: int, word: str = "word") -> str:
    """One line longer than a wrapped one."""
    return " ".join([f"{word}"] * (num_words - 1) + [f"{word}."])


def test_headings_and_marks_are_borders_and_not_text() -> None:
    text = f"CHAPTER I\n\nTHE REEF\n\n{prose(30, 'a')}\n\n* * *\n\n{prose(30, 'b')}\n\n{prose(30, 'c')}\n\nCHAPTER II\n\n{prose(30, 'd')}"
    units = units_of(text)
    assert [unit.text[0] for unit in units] == ["a", "b", "c", "d"]
    assert [unit.border for unit in units] == [CHAPTER_BREAK, SCENE, PARAGRAPH, CHAPTER_BREAK]
    assert [unit.joint for unit in units] == ["", "\n\n* * *\n\n", "\n\n", "\n\nCHAPTER II\n\n"]


def test_markdown_headings_and_front_matter() -> None:
    units = units_of(f"---\ntitle: x\n---\n# One\n{prose(40)}\n\n## Two\n\n{prose(40)}")
    assert [unit.border for unit in units] == [CHAPTER_BREAK, CHAPTER_BREAK]
    assert units[0].text == prose(40)


def test_a_cut_falls_on_the_scene_where_it_can() -> None:
    a, b, c, d, e = (prose(15, letter * 9) for letter in "abcde")
    passages = cut(units_of("\n\n".join([a, b, "***", c, d, e])), word_starts, PassageSize(15, 45))
    assert [passage.text for passage in passages] == [f"{a}\n\n{b}", f"{c}\n\n{d}\n\n{e}"]
    assert [passage.num_tokens for passage in passages] == [30, 45]


def test_short_scenes_are_joined_with_their_mark() -> None:
    text = f"{prose(12, 'a')}\n\n***\n\n{prose(12, 'b')}\n\n{'-' * 3}\n\n{'long ' * 25}"
    passages = cut(units_of(text)[:2], word_starts, PassageSize(20, 60))
    assert [p.text for p in passages] == [f"{prose(12, 'a')}\n\n***\n\n{prose(12, 'b')}"]


def test_a_paragraph_beyond_the_limit_is_cut_at_sentences() -> None:
    paragraph = " ".join(f"Sentence number {n} is here now." for n in range(30))
    passages = cut(units_of(paragraph), word_starts, PassageSize(30, 60))
    assert " ".join(p.text for p in passages) == paragraph
    assert all(30 <= p.num_tokens <= 60 for p in passages)


def test_a_sentence_beyond_the_limit_stays_whole_for_the_caller_to_reject() -> None:
    assert [p.num_tokens for p in cut(units_of(prose(100)), word_starts, PassageSize(10, 40))] == [100]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(5, 20))
def test_nothing_is_lost_and_little_is_too_short(lengths: list[int], minimum: int) -> None:
    words = iter(range(10**6))
    paragraphs = [" ".join(f"w{next(words):0100d}" for _ in range(length)) for length in lengths]  # never wrapped
    size = PassageSize(minimum, 80)
    passages = cut(units_of("\n\n".join(paragraphs)), word_starts, size)
    assert "\n\n".join(p.text for p in passages) == "\n\n".join(paragraphs)
    assert all(p.num_tokens <= 80 for p in passages)
    assert sum(p.num_tokens < minimum for p in passages) <= len(lengths)
    if sum(lengths) >= 2 * 80 and max(lengths) <= 10:
        assert all(p.num_tokens >= minimum for p in passages)


def test_limits_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match="half of max_tokens"):
        PassageSize(60, 100)
