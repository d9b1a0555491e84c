from __future__ import annotations

import pytest

from stages.knowledge.sentences import sentence_ends, sentences


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
