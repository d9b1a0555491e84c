from __future__ import annotations

import random

import pytest

from stages.core.errors import DataError
from stages.evaluation.style import StyleSpace, style_distance

SHORT = ["go", "now", "and", "do", "it", "then", "stop"]
LONG = ["perhaps", "one", "might", "consider", "whether", "that", "would", "suffice"]


def answers(words: list[str], subjects: list[str], seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join([*rng.choices(words, k=25), subject]) for subject in subjects]


SUBJECTS = [f"subject{n}" for n in range(40)]
CLUSTERS = [n // 2 for n in range(40)]
SPACE = StyleSpace.of(answers(SHORT, [f"other{n}" for n in range(50)], seed=0))
PERSONA = answers(SHORT, SUBJECTS, seed=1)


def test_the_space_holds_what_stands_in_most_texts() -> None:
    space = StyleSpace.of(["b a", "b c", "b"])
    assert space.function_words == ("b", "a", "c")
    assert space.ngrams[0] == " b "
    assert space.counts("b b c")[:3] == [2.0, 0.0, 1.0]


def test_imitation_is_as_near_as_the_persona_itself_and_another_voice_is_far() -> None:
    floor = style_distance(SPACE, PERSONA, PERSONA, CLUSTERS, seed=1)
    imitation = style_distance(SPACE, answers(SHORT, SUBJECTS, seed=2), PERSONA, CLUSTERS, seed=1)
    other = style_distance(SPACE, answers(LONG, SUBJECTS, seed=3), PERSONA, CLUSTERS, seed=1)
    assert floor.value == pytest.approx(imitation.value, abs=0.01)
    assert floor.high < other.low  # type: ignore[operator]
    assert other.value > 0.8
    assert floor.n == 40
    assert floor.low is not None and floor.low <= floor.value <= floor.high  # type: ignore[operator]


def test_parroting_the_persona_word_for_word_is_no_nearer_than_its_floor() -> None:
    """Answers to the same questions are never compared with each other."""
    floor = style_distance(SPACE, PERSONA, PERSONA, CLUSTERS, seed=1)
    assert 0 < floor.value < 0.05


def test_empty_answers_have_nothing_in_common_with_anyone() -> None:
    assert style_distance(SPACE, [""] * 40, PERSONA, CLUSTERS, seed=1).value == 1.0


def test_too_few_documents_are_an_error() -> None:
    with pytest.raises(DataError, match="too few"):
        style_distance(SPACE, PERSONA[:3], PERSONA[:3], ["a", "b", "c"], seed=1)
