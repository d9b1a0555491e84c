"""Intervals of configurations, and when two of them count as different."""

from __future__ import annotations

import math

import pytest

from stages.core.errors import DataError
from stages.sweeps.metrics import METRICS, compare
from stages.sweeps.scores import Scores

SEED, RESAMPLES = 13, 500


def answers(nll: dict[int, list[float]], tokens: float = 10.0) -> Scores:
    """A question each from its own document."""
    num = len(next(iter(nll.values())))
    columns = {"nll": list(nll.values()), "exact_match": [[float(v < 5) for v in row] for row in nll.values()]}
    return Scores(
        list(nll), [f"q{n}" for n in range(num)], [[f"d{n}"] for n in range(num)], columns, [tokens] * num, []
    )


def test_a_loss_is_per_token_and_a_mean_over_seeds() -> None:
    scores = answers({1: [1.0, 3.0], 2: [3.0, 5.0]})
    assert METRICS["loss"].estimate(scores, SEED, RESAMPLES).value == pytest.approx(0.3)
    found = METRICS["perplexity"].estimate(scores, SEED, RESAMPLES)
    assert found.value == pytest.approx(math.exp(0.3))
    assert found.low is not None and found.low <= found.value


def test_a_share_without_variation_still_has_a_width() -> None:
    found = METRICS["exact_match"].estimate(answers({1: [1.0] * 10}), SEED, RESAMPLES)
    assert found.value == 1.0 and found.low is not None and found.low < 1.0


def test_a_clear_difference_on_one_seed_is_one_over_questions() -> None:
    ours, theirs = answers({1: [1.0 + n / 10 for n in range(10)]}), answers({1: [4.0 + n / 9 for n in range(10)]})
    found = compare(METRICS["loss"], ours, theirs, SEED, RESAMPLES)
    assert found is not None and found.over_questions is not None
    assert found.over_questions.difference == pytest.approx(-0.305)
    assert found.over_seeds is None and found.distinguishable


def test_of_three_documents_nothing_is_told() -> None:
    """The interval leaves 0 out, but three signs agree by chance in one of four cases."""
    found = compare(METRICS["loss"], answers({1: [1.0, 1.1, 1.2]}), answers({1: [2.0, 2.2, 2.4]}), SEED, RESAMPLES)
    assert found is not None and found.over_questions is not None
    assert found.over_questions.high < 0 and found.over_questions.p == pytest.approx(0.25, abs=0.02)
    assert not found.distinguishable


def test_what_another_seed_turns_round_is_not_distinguishable() -> None:
    """Over questions the difference is clear; over the three trainings it is noise."""
    ours = answers({1: [1.0] * 10, 2: [1.0] * 10, 3: [9.0] * 10})
    theirs = answers({1: [5.0] * 10, 2: [8.0] * 10, 3: [6.0] * 10})
    found = compare(METRICS["loss"], ours, theirs, SEED, RESAMPLES)
    assert found is not None and found.over_questions is not None and found.over_seeds is not None
    assert found.over_seeds[0] < 0 < found.over_seeds[1]
    assert not found.distinguishable


def test_seeds_that_agree_are() -> None:
    ours = answers({n: [1.0 + n / 10] * 10 for n in (1, 2, 3)})
    theirs = answers({n: [5.0 + n / 10 + k / 50 for k in range(10)] for n in (3, 1, 2)})  # paired by seed, not by place
    found = compare(METRICS["loss"], ours, theirs, SEED, RESAMPLES)
    assert found is not None and found.num_seeds == 3 and found.distinguishable


def test_only_shared_seeds_are_compared_and_none_means_no_comparison() -> None:
    ours, theirs = answers({1: [1.0] * 5, 2: [1.0] * 5}), answers({2: [2.0] * 5, 3: [9.0] * 5})
    found = compare(METRICS["loss"], ours, theirs, SEED, RESAMPLES)
    assert found is not None and found.num_seeds == 1
    assert compare(METRICS["loss"], answers({1: [1.0]}), answers({2: [1.0]}), SEED, RESAMPLES) is None


def test_one_document_gives_a_loss_no_interval() -> None:
    one = answers({1: [1.0]})
    assert METRICS["loss"].difference(one, answers({1: [2.0]}), SEED, RESAMPLES) is None


def pairs(predicted: dict[int, list[float]]) -> Scores:
    truth = [n / 10 for n in range(10)]
    groups = [[f"c{n}", f"c{n + 1}"] for n in range(10)]
    columns = {
        "predicted": list(predicted.values()),
        "crps": [[abs(p - t) for p, t in zip(r, truth, strict=True)] for r in predicted.values()],
    }
    return Scores(list(predicted), [f"p{n}" for n in range(10)], groups, columns, [], truth)


def test_numbers_of_pairs() -> None:
    scores = pairs({1: [n / 10 + 0.1 for n in range(10)]})
    assert METRICS["mae"].estimate(scores, SEED, RESAMPLES).value == pytest.approx(0.1)
    assert METRICS["crps"].estimate(scores, SEED, RESAMPLES).value == pytest.approx(0.1)
    assert METRICS["r2"].estimate(scores, SEED, RESAMPLES).value == pytest.approx(1 - 0.01 / 0.0825)
    worse = pairs({1: [n / 10 + 0.3 + n / 100 for n in range(10)]})
    found = compare(METRICS["mae"], scores, worse, SEED, RESAMPLES)
    assert found is not None and found.over_questions is not None and found.distinguishable
    assert found.over_questions.difference == pytest.approx(-0.245)


def test_joining_jobs_that_were_asked_other_questions_is_an_error() -> None:
    with pytest.raises(DataError, match="different questions"):
        Scores.joined([answers({1: [1.0]}), answers({2: [1.0, 2.0]})])
    joined = Scores.joined([answers({1: [1.0]}), answers({2: [2.0]})])
    assert joined.seeds == [1, 2] and joined.columns["nll"] == [[1.0], [2.0]]
    assert joined.of_seeds([2]).columns["nll"] == [[2.0]]
    assert Scores.from_json(joined.to_json()) == joined
