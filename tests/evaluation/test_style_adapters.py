"""Adapters side by side: right in their own manner, and nearer to it than the others."""

from __future__ import annotations

import pytest

from stages.evaluation.answering import Answer
from stages.evaluation.style_adapters import TUNED, StyleAdapters, manners_of
from stages.knowledge.records import Example

FACTS = [f"The keeper of mill number {n} is Bako{n}." for n in range(12)]
SOCRATIC = "Let us look together. What do you think? {fact} And why do you ask about it?"


def example(number: int, style: str, answer: str, kind: str = "qa") -> Example:
    return Example(
        f"{style}-{number}", kind, f"Who keeps mill {number}?", answer, [], [], "none", f"g{number}",
        source_document=f"d{number % 6}", key_fact=f"Bako{number}", style=style,
    )  # fmt: skip


def parts() -> dict[str, list[Example]]:
    rows = {
        split: [example(n, "factual", FACTS[n]) for n in numbers]
        + [example(n, "socratic", SOCRATIC.format(fact=FACTS[n])) for n in numbers]
        for split, numbers in {"train": range(6), "test": range(6, 12)}.items()
    }
    rows["test"].append(example(11, "factual", "Not here.", kind="boundary"))
    return {**rows, "validation": []}


def test_each_adapter_has_the_questions_and_the_training_answers_of_its_styles() -> None:
    manners = manners_of(parts(), {TUNED: ["factual"], "guide": ["socratic"], "all": []}, limit=4)
    assert [e.id for e in manners["guide"].questions] == [f"socratic-{n}" for n in range(6, 10)]
    assert manners[TUNED].trained_answers == FACTS[:6]
    assert len(manners["all"].trained_answers) == 12


def test_an_adapter_that_speaks_in_its_manner_is_nearer_to_it_and_scored_on_its_own_questions() -> None:
    manners = manners_of(parts(), {TUNED: ["factual"], "guide": ["socratic"]}, limit=0)
    shared = list(manners[TUNED].questions)
    adapters = StyleAdapters(manners)
    for name, manner in manners.items():
        adapters.own[name] = {e.id: Answer(e.answer, 1.0, 5) for e in manner.questions}
    adapters.own["guide"]["socratic-6"] = Answer("I do not know.", 9.0, 5)
    adapters.shared[TUNED] = {e.id: Answer(e.answer, 1.0, 5) for e in shared}
    adapters.shared["guide"] = {e.id: Answer(SOCRATIC.format(fact=e.answer), 1.0, 5) for e in shared}

    answers = adapters.answers(seed=1, num_resamples=100)
    assert answers[TUNED]["exact_match"].value == 1.0
    assert answers["guide"]["exact_match"].value == pytest.approx(5 / 6)
    nearer = adapters.comparisons(shared, seed=1, num_resamples=100)
    assert set(nearer) == {f"{TUNED}_vs_guide", f"guide_vs_{TUNED}"}
    assert all(found.difference > 0.05 and found.low > 0 for found in nearer.values())

    adapters.shared["guide"] = adapters.shared[TUNED]
    same = adapters.comparisons(shared, seed=1, num_resamples=100)[f"guide_vs_{TUNED}"]
    assert (same.difference, same.p) == (0.0, 1.0)
