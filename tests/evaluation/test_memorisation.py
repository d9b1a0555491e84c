from __future__ import annotations

from stages.evaluation.memorisation import Span, TrainingText

TEXT = TrainingText(["The old mill stands by the river and nobody goes there", "Keep to the road at night, always"])


def test_the_longest_copied_span() -> None:
    span = TEXT.longest_copy("They say the MILL stands by the river, and nobody went.")
    assert span == Span(7, 11, "mill stands by the river and nobody", 0)
    assert span.share == 7 / 11


def test_spans_of_common_length_are_no_copies() -> None:
    assert TEXT.longest_copy("the mill stands by the sea") == Span(0, 6)
    assert TEXT.longest_copy("to the road at night") == Span(5, 5, "to the road at night", 1)


def test_spans_do_not_reach_over_the_end_of_a_document() -> None:
    assert TEXT.longest_copy("river and nobody goes there keep to the road").num_words == 5


def test_what_the_question_says_is_not_copied_from_memory() -> None:
    answer = "The old mill stands by the river"
    assert TEXT.longest_copy(answer, "Is it true that the old mill stands by the river?") == Span(0, 7)
    assert TEXT.longest_copy(answer, "Where is the old mill?").num_words == 7


def test_an_empty_answer_copies_nothing() -> None:
    assert TEXT.longest_copy("").share == 0.0
    assert TrainingText([]).longest_copy("The old mill stands by the river").share == 0.0
