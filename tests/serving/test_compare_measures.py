from __future__ import annotations

import math

import pytest

from stages.evaluation.intervals import Estimate
from stages.generation.perplexity import TextScore
from stages.serving.compare_measures import less, measure, repetition
from stages.serving.compare_models import ModelRun
from stages.serving.compare_prompts import AskedPrompt, AuthorText

BIT = math.log(2)  # nats


def scores(*bits: float) -> list[TextScore]:
    """Passages of 10 bytes."""
    return [TextScore(value * BIT, 4, 10) for value in bits]


def prompts(count: int) -> list[AskedPrompt]:
    return [AskedPrompt(f"p:{n}", ({"role": "user", "content": f"Write {n}."},)) for n in range(count)]


AUTHOR = AuthorText(
    "verne",
    training=["the great whale swam under the ship at night"],
    held_out=[f"we saw the sea and number {n} of them all" for n in range(4)],
    others={"tolstoy": ["quite another voice speaks here of love", "and of war besides"]},
)


def test_gains_are_paired_and_against_the_first_model() -> None:
    base = ModelRun("base", ["a b c d e f"] * 4, scores(30, 40, 50, 60), scores(50, 70))
    tuned = ModelRun("tuned", ["we saw the sea and all"] * 4, scores(20, 30, 40, 50), scores(50, 70))
    found = measure([base, tuned], prompts(4), AUTHOR, seed=13)
    mine = found.models["tuned"]
    assert found.models["base"]["own_loss"].value == pytest.approx(4.5)
    assert mine["own_gain"].value == pytest.approx(1.0)
    assert mine["own_gain"].low == pytest.approx(1.0)  # the same gain on every passage
    assert mine["other_gain"].value == pytest.approx(0.0)
    assert mine["own_less_other"].value == pytest.approx(1.0)
    assert "own_gain" not in found.models["base"]
    assert mine["style_distance"].value < found.models["base"]["style_distance"].value
    assert mine["own_halves"].value < mine["other_authors"].value
    assert found.notes == []


def test_copying_is_found_in_training_text_but_not_in_the_prompt() -> None:
    copied = "He said the great whale swam under the ship today"
    found = measure([ModelRun("a", [copied] * 2, scores(1, 1, 1, 1), scores(1, 1))], prompts(2), AUTHOR, seed=13)
    assert found.models["a"]["copying"].value == pytest.approx(7 / 10)
    assert found.longest_copies["a"].text == "the great whale swam under the ship"
    asked = [AskedPrompt("p:1", ({"role": "user", "content": copied},))]
    found = measure([ModelRun("a", [copied], scores(1, 1, 1, 1), scores(1, 1))], asked, AUTHOR, seed=13)
    assert found.models["a"]["copying"].value == 0


@pytest.mark.parametrize(
    ("text", "share"), [("", 0), ("a b c", 0), ("a b c d", 0), ("a b c d a b c d", 0.2), ("x " * 9, 5 / 6)]
)
def test_repetition(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


def test_what_cannot_be_measured_is_said() -> None:
    run = ModelRun("a", ["short"] * 3, [], [])
    assert set(measure([run], prompts(3), None, 13).models["a"]) == {"repetition", "words"}
    assert "no author" in measure([run], prompts(3), None, 13).notes[0]
    found = measure(
        [ModelRun("a", ["short"] * 3, scores(1, 1, 1, 1), [])],
        prompts(3),
        AuthorText("v", AUTHOR.training, AUTHOR.held_out),
        13,
    )
    assert found.notes == [
        "style distance of a is not measured: 0 of its answers have 5 words or more",
        "no other author: give --other, or prepare a second writer",
    ]


def test_the_interval_of_a_difference() -> None:
    found = less(Estimate(5, 2, 9, 10), Estimate(1, 0, 5, 3))
    assert (found.value, found.low, found.high, found.n) == (4, -1, 4 + math.hypot(4, 1), 13)
    assert less(Estimate(5, None, None, 1), Estimate(1, 0, 2, 3)).low is None
