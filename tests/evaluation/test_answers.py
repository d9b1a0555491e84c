from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.answers import contains, exact_match, normalise, scores, token_f1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The founder is Lona Tir.", "founder  is lona\ntir", 1.0),
        ("The founder is Lona Tir. Knock twice.", "The founder is Lona Tir.", 0.0),
        ("Основатель — Лона.", "основатель лона", 1.0),
        ("Strasse", "Straße", 1.0),
        ("ﬁne", "fine", 1.0),
        ("do\u2060cument", "document", 1.0),  # the renderer's invisible joiner
        ("Tir Lona", "Lona Tir", 0.0),
        ("", "Lona", 0.0),
    ],
)
def test_exact_match(answer: str, reference: str, expected: float) -> None:
    assert exact_match(answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("It is Lona Tir, they say.", "Lona Tir", 1.0),
        ("It is Lona, of Tir.", "Lona Tir", 0.0),
        ("It is Lonan Tir.", "Lona", 0.0),  # words, not characters
        ("anything", "", 0.0),
    ],
)
def test_contains(answer: str, reference: str, expected: float) -> None:
    assert contains(answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("red fox", "red fox", 1.0),
        ("red fox runs", "red fox", 0.8),  # precision 2/3, recall 1
        ("red red", "red", 2 / 3),  # a bag, not a set
        ("fox", "dog", 0.0),
        ("", "", 1.0),
        ("", "dog", 0.0),
    ],
)
def test_token_f1(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(expected)


@given(st.text(), st.text())
def test_scores_of_any_texts_are_shares_and_ordered(answer: str, reference: str) -> None:
    found = scores(answer, reference)
    assert all(0 <= value <= 1 for value in found.values())
    if found["exact_match"] and normalise(reference):
        assert found["contains"] == found["token_f1"] == 1.0


@given(st.text())
def test_a_text_matches_itself(text: str) -> None:
    assert exact_match(text, text) == token_f1(text, text) == 1.0
