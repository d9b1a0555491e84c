"""Stories: seeded, of the length that was asked for, with the answer in the quarter that the question names."""

from __future__ import annotations

from stages.benchmarking.invented_story import NUM_QUARTERS, story, text_of


def test_the_same_seed_tells_the_same_story() -> None:
    assert story(13, 0, 2000) == story(13, 0, 2000)
    assert story(13, 0, 2000) != story(13, 1, 2000) != story(14, 1, 2000)


def test_each_quarter_has_a_question_whose_answer_stands_there() -> None:
    for number in range(20):
        told = story(13, number, 2000)
        assert len(told.text) <= 2000 and [q.quarter for q in told.questions] == list(range(NUM_QUARTERS))
        for question in told.questions:
            place = told.text.index(f" {question.right}.") / len(told.text)
            assert question.quarter / NUM_QUARTERS - 0.15 < place < (question.quarter + 1) / NUM_QUARTERS + 0.15
            assert question.right not in question.wrong and all(value in told.text for value in question.wrong)


def test_no_value_stands_for_two_facts() -> None:
    for number in range(5):
        question = story(13, number, 12_000).questions[0]
        assert len(question.wrong) > 100


def test_recall_and_contradiction() -> None:
    question = story(13, 0, 2000).questions[0]
    wrong = question.wrong[0]
    for answer, expected in {
        f"It is {question.right.upper()}!": (True, False),
        f"It is {wrong}.": (False, True),
        f"{question.right}, or {wrong}.": (True, True),
        f"{question.right}{wrong}": (False, False),
        "": (False, False),
    }.items():
        assert (question.is_recalled(answer), question.is_contradicted(answer)) == expected, answer


def test_a_short_story_still_has_four_quarters() -> None:
    assert len(story(13, 0, 1).questions) == NUM_QUARTERS


def test_text_has_its_own_beginning_for_each_purpose() -> None:
    one, other = text_of(13, "a", 500), text_of(13, "b", 500)
    assert len(one) == len(other) == 500
    assert one[:40] != other[:40] and one == text_of(13, "a", 500)
