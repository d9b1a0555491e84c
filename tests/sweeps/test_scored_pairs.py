"""A model that writes numbers is chosen by its validation pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import train_regression
from stages.core.stage import Trial
from stages.core.workspace import Workspace
from stages.sweeps import settings
from stages.sweeps.figures import values_of
from stages.sweeps.job_workspace import JobWorkspace
from stages.sweeps.scoring import SCORERS
from stages.train_regression import Config
from tests.regression.conftest import *  # noqa: F403  # fixtures
from tests.regression.test_train_regression import config, workspace  # noqa: F401
from tests.sweeps.conftest import preset_jobs, run_jobs

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


def test_the_preset_of_loss_kinds_and_weights(
    workspace: Workspace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.sweeps.job.ROOT", workspace.inputs)
    monkeypatch.setattr("stages.sweeps.job.die_with_parent", lambda: None)
    stage = "train_regression"
    small = ["model.name=random", "sweep.num_resamples=200", f"{stage}.num_workers=1"]
    small += [f"{stage}.neighbours.top_k=1", f"{stage}.training.max_length=400", f"{stage}.training.num_epochs=1"]
    jobs = preset_jobs("loss_weight", stage, f"{stage}.loss.weight=5,20", f"{stage}.seeds={{by_contract:[1,2]}}")
    results = run_jobs(Trial(stage, "hybrid"), jobs, small, "mae", tmp_path)
    assert [job.status for job in results.jobs] == ["finished"] * 8, [job.note for job in results.jobs]
    assert list(results.varied.values()) == ["kind", "weight"]
    assert values_of(results, f"{stage}.loss.kind") == ["crps", "mse", "mae", "huber"]
    assert values_of(results, f"{stage}.loss.weight") == ["5", "20"]
    assert results.configurations[0].scores.seeds == [1, 2]
    page = (tmp_path / f"reports/{stage}/sweep.md").read_text()
    assert "# train_regression @hybrid: sweep" in page and "over 2 seeds" in page
    assert (tmp_path / f"reports/{stage}/sweep.png").read_bytes().startswith(b"\x89PNG")
