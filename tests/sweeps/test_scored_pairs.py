"""A model that writes numbers is chosen by its validation pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import train_regression
from stages.core.workspace import Workspace
from stages.sweeps import settings
from stages.sweeps.job_workspace import JobWorkspace
from stages.sweeps.scoring import SCORERS
from stages.train_regression import Config
from tests.regression.conftest import *  # noqa: F403  # fixtures
from tests.regression.test_train_regression import config, workspace  # noqa: F401

pytestmark = pytest.mark.slow


def test_every_seed_of_the_first_split_predicts_the_validation_pairs(
    workspace: Workspace,  # noqa: F811
    config: Callable[..., Config],  # noqa: F811
    tmp_path: Path,
) -> None:
    job = JobWorkspace(workspace.inputs, tmp_path / "job")
    made = config()
    train_regression.run(made, job)
    sweep = settings.Config(seed=13, max_new_tokens=8, batch_size=4, num_resamples=200, num_trials=1)
    found: dict[str, Any] = SCORERS["train_regression"].score(made, sweep, job)
    scores = found["scores"]
    assert scores["seeds"] == [1, 2] and scores["ids"] == [f"{n}--{n + 1}" for n in range(12, 16)]
    assert scores["truth"] == pytest.approx([0.4, 0.5, 0.6, 0.7])
    errors = [abs(p - t) for row in scores["columns"]["predicted"] for p, t in zip(row, scores["truth"], strict=True)]
    assert found["metrics"]["mae"]["value"] == pytest.approx(sum(errors) / 8, abs=1e-6)
    assert 0 < found["metrics"]["crps"]["value"] < 2
    assert f"models/{made.task.name}" not in "".join(job.used)
    assert "data/contracts/pairs" in job.used and "data/contracts/pair_index" in job.used
