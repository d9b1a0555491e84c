"""Killed by SIGKILL anywhere and run again: the same bytes as never killed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_training.py")
ROOT = Path(__file__).resolve().parents[2]
LOSS_COLUMNS = ("step", "epoch", "train_loss", "eval_loss", "learning_rate", "grad_norm")

# An epoch has 5 steps, with evaluations after 2 (or 3) and 5 of them.
PLACES = {
    "never": [],
    "again": [],
    "first_step": ["step 1"],
    "middle_of_epoch": ["step 9"],
    "first_step_of_epoch": ["step 11"],
    "while_writing": ["writing 8", "writing 8"],
    "before_marker": ["marking 10"],
    "before_pruning": ["pruning 5"],
    "after_the_early_stop": ["pruning 20"],
    "many_times": ["step 4", "marking 8", "step 10", "pruning 12", "saving"],
    "while_saving_the_result": ["saving"],
}


@pytest.fixture(scope="module")
def outputs(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tiny_base / "models/base/tiny"), str(work), json.dumps(PLACES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return work


def losses(folder: Path) -> list[tuple[str, ...]]:
    with open(folder / "curve.csv", encoding="utf-8") as file:
        return [tuple(row[column] for column in LOSS_COLUMNS) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in PLACES if name != "never"])
def test_same_bytes_as_never_killed(outputs: Path, name: str) -> None:
    expected, actual = outputs / "never", outputs / name
    for file in sorted((expected / "adapter").iterdir()):
        assert (actual / "adapter" / file.name).read_bytes() == file.read_bytes(), file.name
    assert losses(actual) == losses(expected)
    assert (actual / "figures.json").read_text() == (expected / "figures.json").read_text()
    assert not list((actual / "checkpoints").iterdir())  # gone on success


@pytest.mark.slow
def test_the_training_that_was_killed_is_no_trivial_one(outputs: Path) -> None:
    """It stopped early, with the best evaluation in an epoch after the first: all that state had to survive."""
    figures = json.loads((outputs / "never" / "figures.json").read_text())
    assert figures["num_steps"] == 20  # of 30
    assert figures["best_epoch"] == 3.0
