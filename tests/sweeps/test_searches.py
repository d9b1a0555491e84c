"""A search: what Optuna is asked for, and which trainings it gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from stages.core.atomic import write_json
from stages.core.progress import OBSERVERS, evaluated

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")

from stages.sweeps.pruning import NUM_STARTUP, TRIAL_FILE, Pruned, observers_of, open_study  # noqa: E402
from stages.sweeps.search import distribution  # noqa: E402


def parse(override: str) -> Any:
    return OverridesParser.create().parse_override(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=4,8,16", "CategoricalDistribution(choices=('4', '8', '16'))"),
        ("a=choice(x,y)", "CategoricalDistribution(choices=('x', 'y'))"),
        ("a=range(1,4)", "CategoricalDistribution(choices=('1', '2', '3'))"),
        ("a=int(interval(1,4))", "IntDistribution(high=4, log=False, low=1, step=1)"),
        ("a=interval(0.5,4)", "FloatDistribution(high=4.0, log=False, low=0.5, step=None)"),
        ("a=tag(log,interval(1e-4,1e-2))", "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)"),
    ],
)
def test_hydras_sweeps_become_optunas_distributions(override: str, expected: str) -> None:
    assert str(distribution(parse(override))) == expected


def test_a_training_worse_than_the_median_is_given_up(tmp_path: Path) -> None:
    study = open_study(tmp_path, seed=1)
    for number in range(NUM_STARTUP):
        trial = study.ask()
        for step in (10, 20):
            trial.report(1.0 + number / 10, step)
        study.tell(trial, 1.0)
    for folder, losses, pruned in (("good", (1.05, 1.0), False), ("bad", (3.0, 2.9), True)):
        trial = study.ask()
        write_json(tmp_path / folder / TRIAL_FILE, {"trial_id": trial._trial_id})
        [observe] = observers_of(tmp_path / folder, seed=1)
        if pruned:
            with pytest.raises(Pruned, match="worse than the median"):
                observe(10, losses[0])
        else:
            observe(10, losses[0])
            observe(20, losses[1])


def test_a_job_of_a_grid_is_watched_by_nobody(tmp_path: Path) -> None:
    assert observers_of(tmp_path, seed=1) == []


def test_every_observer_hears_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, float]] = []
    monkeypatch.setattr("stages.core.progress.OBSERVERS", [lambda step, loss: heard.append((step, loss))])
    evaluated(7, 0.5)
    assert heard == [(7, 0.5)] and OBSERVERS == []
