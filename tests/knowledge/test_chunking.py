from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.chunking import Section, cut, cut_paragraphs, paragraphs, sections, sentence_ends, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two three. Four.", ["One.", "Two three.", "Four."]),
        ("He is J. Verne. So!", ["He is J. Verne.", "So!"]),
        ('She said "Yes." Then left?', ['She said "Yes."', "Then left?"]),
        ("Она ушла… Дверь (тоже.) А он?", ["Она ушла…", "Дверь (тоже.)", "А он?"]),
        ("3.5 percent, e.g. this one", ["3.5 percent, e.g. this one"]),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_sentence_ends_keep_what_stands_between() -> None:
    text = "One.\n\nTwo. Three. "
    assert [text[:end] for end in sentence_ends(text)] == ["One.", "One.\n\nTwo.", "One.\n\nTwo. Three."]


def test_paragraphs_of_wrapped_and_of_unwrapped_text() -> None:
    assert paragraphs("a b\nc d\n\n  e f\ng\n") == ["a b c d", "e f g"]
    long = "word " * 30
    assert paragraphs(f"{long}\nsecond line\n") == [long.strip(), "second line"]


def test_sections_at_headings_with_parts() -> None:
    text = "Title\n\nPART ONE\n\nCHAPTER I\n\nA shifting reef.\n\nCHAPTER II\n\nMore.\n\nPart two\n\nII\n\nEnd."
    assert sections(text) == [
        Section("", ["Title"]),
        Section("PART ONE CHAPTER I", ["A shifting reef."]),
        Section("PART ONE CHAPTER II", ["More."]),
        Section("Part two II", ["End."]),
    ]
    assert [s.heading for s in sections("Часть первая\n\nОдин.\n\nГлава 2\n\nДва.")] == [
        "Часть первая",
        "Часть первая Глава 2",
    ]


def test_a_sentence_that_begins_like_a_heading_stays_text() -> None:
    assert sections("Part of it was true.\n\nChapter and verse, he said.") == [
        Section("", ["Part of it was true.", "Chapter and verse, he said."])
    ]


def test_cut() -> None:
    assert cut("One. Two three. Four.", 3) == ["One. Two three.", "Four."]
    assert cut_paragraphs(["a b", "c", "d e f g h"], 3) == ["a b\n\nc", "d e f", "g h"]


@given(st.text(alphabet="ab. \n", max_size=80), st.integers(1, 6))
def test_cut_keeps_every_word_and_the_limit(text: str, max_words: int) -> None:
    chunks = cut(text, max_words)
    assert " ".join(chunks).split() == text.split()
    assert all(1 <= len(chunk.split()) <= max_words for chunk in chunks)


def test_a_real_russian_novel_has_its_chapters(shared_data: Path) -> None:
    text = (shared_data / "books" / "tolstoy_semeynoye_schastiye.ru.txt").read_text(encoding="utf-8")
    found = sections(text)
    assert [s.heading.split()[-1] for s in found] == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    assert all(len(chunk.split()) <= 250 for s in found for chunk in cut_paragraphs(s.paragraphs, 250))
