from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.fingerprint import sha256_files
from stages.core.workspace import Workspace
from stages.evaluation import regression_figures as figures
from stages.evaluation.intervals import Difference, Estimate
from stages.evaluation.pair_bootstrap import Undefined
from stages.evaluation.regression_conformal import Calibration
from stages.evaluation.regression_publishing import publish, read_curve
from stages.evaluation.regression_report import RegressionReport, verdict
from stages.evaluation.regression_results import FreeAnswers, SplitResults, Summary, System, Task, as_json

TASK = Task("contracts", "correlation", -1.0, 1.0, 2)
VALUES = np.round(np.linspace(-1, 1, 21), 1)
SEEDS = (1, 2, 3)
CONTRACTS = 12
NOISE = {"ce": 0.3, "hybrid": 0.1}  # standard error of what a recipe expects


def language_model(
    truth: np.ndarray[Any, Any], held: np.ndarray[Any, Any], noise: float, recipe: str, num_neighbours: int = 0
) -> dict[str, System]:
    """Distributions around the truth; greedy decoding rounds their mean to tenths and errs by a further .2."""
    rng = np.random.default_rng([int(1000 * noise), num_neighbours])
    seeds = SEEDS if recipe else (0,)
    probabilities = []
    for part in (held, truth):
        means = np.clip(part + rng.normal(0, noise, (len(seeds), len(part))), -1, 1)
        density = np.exp(-0.5 * ((VALUES - means[..., None]) / 0.1) ** 2)
        probabilities.append(density / density.sum(-1, keepdims=True))
    expected = [p @ VALUES for p in probabilities]
    greedy = [np.clip(e.round(1) + 0.2, -1, 1) for e in expected]
    name, suffix = recipe or "base", "_neighbours" if num_neighbours else ""
    ours: dict[str, Any] = {"recipe": recipe, "num_neighbours": num_neighbours, "seeds": seeds if recipe else ()}
    distributions = dict(
        zip(("values", "validation_probabilities", "test_probabilities"), (VALUES, *probabilities), strict=True)
    )
    return {
        f"{name}_greedy{suffix}": System(greedy[0], greedy[1], decoding="greedy", **ours),
        f"{name}_expected{suffix}": System(expected[0], expected[1], decoding="expected", **ours, **distributions),
    }


def split_results(name: str, trained: bool = True) -> SplitResults:
    a, b = np.triu_indices(CONTRACTS, 1)
    truth, held = 0.8 * np.sin(a + 2.0 * b), 0.8 * np.sin(3.0 * a + b)
    results = SplitResults(
        name, [f"p{n}" for n in range(len(a))], [f"c{n}" for n in a], [f"c{n}" for n in b], truth, held,
        true_values=truth + 0.01, num_train=500,
    )  # fmt: skip
    results.systems["constant"] = System(np.full((1, len(held)), 0.1), np.full((1, len(truth)), 0.1))
    results.systems |= language_model(truth, held, 0.6, "")
    if trained:
        for recipe, noise in NOISE.items():
            results.systems |= language_model(truth, held, noise, recipe)
        results.systems |= language_model(truth, held, 0.2, "hybrid", num_neighbours=5)
        results.free_answers = {"ce": FreeAnswers([True, True, False, True], ["", "extra_text", "no_json", ""])}
    return results


def summary(*splits: SplitResults, recipes: tuple[str, ...] = ("ce", "hybrid")) -> Summary:
    return Summary(TASK, list(splits), recipes, [0.2, 0.5], 0.9, seed=1, num_resamples=200)


@pytest.fixture(scope="module")
def made() -> Summary:
    return summary(split_results("by_contract"), split_results("by_pair"))


@pytest.fixture(scope="module")
def tree(made: Summary) -> Any:
    return made.tree()


def test_every_system_is_scored_on_every_split(tree: Any) -> None:
    found = tree["regression"]["contracts"]
    models = ["base", "ce", "hybrid"]
    assert set(found) == {"constant", "ceiling", *(f"{m}_{d}" for m in models for d in ("greedy", "expected"))} | {
        "hybrid_greedy_neighbours",
        "hybrid_expected_neighbours",
    }
    assert {tuple(splits) for splits in found.values()} == {("by_contract", "by_pair")}
    scores = found["hybrid_expected"]["by_contract"]
    assert list(scores) == ["mae", "rmse", "r2", "pearson", "spearman", "acc_at_0_2", "acc_at_0_5"]
    assert scores["mae"].n == 66
    assert scores["mae"].value == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.15)
    assert scores["acc_at_0_2"].value == pytest.approx(0.954, abs=0.04)
    assert found["constant"]["by_contract"]["pearson"] == Undefined(66)
    assert found["ceiling"]["by_contract"]["mae"].value == pytest.approx(0.01)


def test_a_recipe_is_scored_seed_by_seed(made: Summary, tree: Any) -> None:
    """The mean of the seeds' errors, not the error of their mean, which would be smaller."""
    split = made.headline
    errors = np.abs(split.systems["ce_expected"].test - split.truth).mean(axis=1)
    value = tree["regression"]["contracts"]["ce_expected"]["by_contract"]["mae"].value
    assert value == pytest.approx(errors.mean())
    assert np.abs(split.systems["ce_expected"].test.mean(axis=0) - split.truth).mean() < value - 0.05


def test_comparisons(tree: Any) -> None:
    found = tree["compare"]
    names = ["hybrid_vs_ce", "best_vs_ce_greedy", "neighbours_vs_none"]
    assert set(found) == {
        n + metric + split for n in names for metric in ("", "_squared_error") for split in ("", "_by_pair")
    }
    scores = tree["regression"]["contracts"]
    hybrid, ce = (scores[f"{recipe}_expected"]["by_contract"]["r2"].value for recipe in ("hybrid", "ce"))
    assert found["hybrid_vs_ce"].difference == pytest.approx(hybrid - ce)
    assert verdict(found["hybrid_vs_ce"]) == "better"
    assert found["hybrid_vs_ce_squared_error"].difference < 0
    assert verdict(found["neighbours_vs_none"]) == "worse"


def test_the_best_is_chosen_on_validation_and_never_on_test() -> None:
    split = split_results("by_contract")
    assert split.best == "hybrid_expected"
    lucky = split.systems["ce_greedy"]
    better_on_test = System(lucky.validation, np.tile(split.truth, (3, 1)), "ce", "greedy", 0, SEEDS)
    changed = split_results("by_contract")
    changed.systems["ce_greedy"] = better_on_test
    assert changed.best == "hybrid_expected"
    changed = split_results("by_contract")
    changed.systems["ce_greedy"] = System(np.tile(split.validation_truth, (3, 1)), lucky.test, "ce", "greedy", 0, SEEDS)
    assert changed.best == "ce_greedy"


def test_only_what_was_trained_can_be_best() -> None:
    split = split_results("by_contract")
    split.systems["constant"] = System(split.validation_truth[None, :], split.truth[None, :])
    assert split.best == "hybrid_expected"


def test_recipes_are_compared_over_the_seeds_that_both_have() -> None:
    split = split_results("by_contract")
    whole = summary(split).tree()["compare"]["hybrid_vs_ce"].difference
    old = split.systems["hybrid_expected"]
    split.systems["hybrid_expected"] = System(
        old.validation[::-1], old.test[::-1], "hybrid", "expected", 0, SEEDS[::-1],
        old.values, old.validation_probabilities, old.test_probabilities,
    )  # fmt: skip
    assert summary(split).tree()["compare"]["hybrid_vs_ce"].difference == pytest.approx(whole)
    other_seeds = System(old.validation[:1], old.test[:1], "hybrid", "expected", 0, (9,))
    split.systems["hybrid_expected"] = other_seeds
    assert "compare" not in summary(split).tree()


def test_intervals_hold_what_they_promise(tree: Any) -> None:
    found = tree["calibration"]
    assert set(found) == {n for n in tree["regression"]["contracts"] if n != "ceiling"}
    for name in ("hybrid_expected", "ce_expected", "ce_greedy", "constant"):
        assert found[name]["coverage"].value == pytest.approx(0.9, abs=0.1), name
    assert found["hybrid_expected"]["width"].value < found["ce_expected"]["width"].value
    assert found["hybrid_expected"]["width"].value == pytest.approx(2 * 1.645 * 0.1, rel=0.3)


def test_answers_without_the_grammar(tree: Any) -> None:
    assert tree["parse_share"]["ce"].value == 0.75
    assert tree["parse_share"]["ce"].n == 4


def test_what_is_served_is_the_seed_that_validates_best(made: Summary) -> None:
    found = made.calibration("tiny")
    assert (found["task"], found["model"], found["split"], found["best"]) == (
        "contracts", "tiny", "by_contract", "hybrid_expected",
    )  # fmt: skip
    assert set(found["systems"]) == {n for n, s in made.headline.systems.items() if s.recipe}
    entry, system = found["systems"]["ce_expected"], made.headline.systems["ce_expected"]
    errors = ((system.validation - made.headline.validation_truth) ** 2).mean(axis=1)
    assert entry["seed"] == SEEDS[int(np.argmin(errors))]
    assert (entry["recipe"], entry["decoding"], entry["num_neighbours"]) == ("ce", "expected", 0)
    assert found["systems"]["hybrid_greedy_neighbours"]["num_neighbours"] == 5
    calibration = Calibration.from_json(json.loads(json.dumps(entry["interval"])))
    assert (calibration.kind, calibration.n, calibration.low) == ("quantiles", 66, -1.0)
    assert found["systems"]["ce_greedy"]["interval"]["kind"] == "point"


def test_json_has_numbers_nulls_and_names(tree: Any) -> None:
    plain = json.loads(json.dumps(as_json(tree), allow_nan=False))
    assert plain["best"] == {"by_contract": "hybrid_expected", "by_pair": "hybrid_expected"}
    assert plain["num_shortened"] == {"by_contract": 0, "by_pair": 0}
    assert plain["regression"]["contracts"]["constant"]["by_contract"]["pearson"]["value"] is None


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.2, "indistinguishable")]
)
def test_a_verdict_follows_the_interval(low: float, high: float, word: str) -> None:
    assert verdict(Difference((low + high) / 2, low, high, 0.5, 10)) == word


def report(made: Summary, targets: dict[str, float] | None = None) -> str:
    return RegressionReport(made, made.tree(), "tiny", targets or {}, ["scatter", "tolerance"]).text()


def test_the_report_says_what_the_numbers_say(made: Summary) -> None:
    text = report(made, {"r2": 0.5, "mae": 0.01})
    assert "`correlation`, a number from -1 to 1 in steps of 0.01" in text
    assert "66 test pairs of 12 texts in `by_contract` (500 to train on, 66 to validate; 3 seeds)" in text
    assert "Best on the validation pairs (the choice saw no test pair): **hybrid, expected**." in text
    assert "Target R² at least 0.5: reached" in text
    assert "Target MAE at most 0.01: **missed by 0.0" in text
    assert "hybrid less ce, both expected: +" in text and "Verdict: **better**" in text
    assert "in `by_pair`: " in text
    assert "extra_text 1, no_json 1" in text
    assert "| constant | " in text and "undefined" in text
    assert "![scatter](figures/scatter.png)" in text and "![loss_parts]" not in text
    assert "**hybrid, expected** |" in text


def test_a_bad_model_gets_no_praise() -> None:
    """The same report where the hybrid is the worse one."""
    split = split_results("by_contract")
    for name in ("greedy", "expected"):
        a, b = split.systems[f"ce_{name}"], split.systems[f"hybrid_{name}"]
        split.systems[f"ce_{name}"], split.systems[f"hybrid_{name}"] = (
            replace(b, recipe="ce"),
            replace(a, recipe="hybrid"),
        )
    text = report(summary(split), {"r2": 0.999})
    assert "hybrid less ce, both expected: -" in text and "Verdict: **worse**" in text
    assert "Target R² at least 0.999: **missed by" in text
    assert "Best on the validation pairs (the choice saw no test pair): **ce, expected**." in text


def test_nothing_trained_still_gives_a_report(tmp_path: Path) -> None:
    alone = summary(split_results("by_contract", trained=False), recipes=())
    tree = alone.tree()
    assert set(tree) == {"regression", "calibration", "num_shortened"}
    publish(Workspace(tmp_path, tmp_path), alone, tree, "tiny", {"r2": 0.5}, {})
    assert "No trained model was evaluated." in (tmp_path / "reports/contracts/report.md").read_text()


def test_one_pair_still_gives_a_report(tmp_path: Path) -> None:
    """limit: 1"""
    whole = split_results("by_contract")
    one = SplitResults("by_contract", ["p0"], ["c0"], ["c1"], whole.truth[:1], whole.validation_truth[:1])
    for name, s in whole.systems.items():
        distributions = [None if p is None else p[:, :1] for p in (s.validation_probabilities, s.test_probabilities)]
        one.systems[name] = System(
            s.validation[:, :1],
            s.test[:, :1],
            s.recipe,
            s.decoding,
            s.num_neighbours,
            s.seeds,
            s.values,
            *distributions,
        )
    made = summary(one)
    tree = made.tree()
    assert tree["regression"]["contracts"]["ce_expected"]["by_contract"]["r2"] == Undefined(1)
    assert isinstance(tree["calibration"]["ce_expected"]["width"], Estimate)
    assert tree["calibration"]["ce_expected"]["width"].value == 2.0  # one pair calibrates nothing: the whole range
    assert "compare" not in tree
    publish(Workspace(tmp_path, tmp_path), made, tree, "tiny", {"r2": 0.5}, {})
    assert "undefined for these pairs" in (tmp_path / "reports/contracts/report.md").read_text()


CURVE = (
    "step,train_loss,eval_loss,eval_token,eval_number,grad_norm_token,grad_norm_number\n"
    "1,2,2,1.5,0.5,3,1\n2,1,,0.9,0.1,2,0.5\n"
)


def test_a_curve_without_a_number_in_every_cell() -> None:
    rows = read_curve(CURVE)
    assert rows[0]["eval_number"] == 0.5 and rows[0]["eval_loss"] == 2.0
    assert "eval_loss" not in rows[1]


def test_what_is_published_is_the_same_every_time(made: Summary, tree: Any, tmp_path: Path) -> None:
    curves = {"ce": [{"step": 1.0, "eval_token": 1.0}, {"step": 2.0, "eval_token": 0.5}], "hybrid": read_curve(CURVE)}
    for folder in ("one", "two"):
        workspace = Workspace(tmp_path / folder, tmp_path / folder)
        publish(workspace, made, tree, "tiny", {}, curves)
    assert sha256_files(tmp_path / "one") == sha256_files(tmp_path / "two")
    assert set(sha256_files(tmp_path / "one/reports/contracts")) == {
        "report.md",
        *(f"figures/{name}.png" for name in ("scatter", "tolerance", "calibration", "loss_parts")),
        *(f"plots/{name}.csv" for name in ("regression", "tolerance", "predictions")),
    }
    with open(tmp_path / "one/reports/contracts/plots/regression.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if (r["system"], r["split"], r["metric"]) == ("hybrid_expected", "by_pair", "r2"))
    wanted = tree["regression"]["contracts"]["hybrid_expected"]["by_pair"]["r2"]
    assert float(row["value"]) == pytest.approx(wanted.value, abs=1e-5) and row["n"] == "66"
    with open(tmp_path / "one/reports/contracts/plots/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "true", "hybrid_expected", "ce_greedy"] and len(rows) == 66


def test_accuracy_over_tolerance_is_the_metric_at_each_tolerance(made: Summary, tree: Any) -> None:
    tolerances = figures.curve_tolerances(TASK)
    assert (tolerances[0], tolerances[40], tolerances[-1]) == pytest.approx((0.0, 0.2, 0.5))
    shares = figures.accuracy_curves(TASK, made.headline)["ce_expected"]
    assert shares[40] == pytest.approx(
        tree["regression"]["contracts"]["ce_expected"]["by_contract"]["acc_at_0_2"].value
    )
    assert (np.diff(shares) >= 0).all()


def test_calibration_moves_coverage_to_its_level(made: Summary) -> None:
    """Distributions with a spread of .1 around means that err by .3: far too sure of themselves."""
    found = dict(zip(figures.LEVELS, figures.coverages(TASK, made.headline, "ce_expected"), strict=True))
    raw, calibrated = found[0.8]
    assert raw < 0.5
    assert calibrated == pytest.approx(0.8, abs=0.1)
