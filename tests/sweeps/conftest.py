"""Sweeps for tests: of one more stage, `probe`, in a checkout of its own, which fails, dies or takes its time as it is
told; and of the real stages on tiny models, in this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from stages.compose import compose
from stages.core.stage import Trial
from stages.sweeps.job import run_job
from stages.sweeps.naming import job_names, settings_of
from stages.sweeps.results import Plan, SweepResults
from stages.sweeps.sweeping import preset_overrides
from stages.sweeps.table import write_report

ROOT = Path(__file__).resolve().parents[2]

PROBE = '''
"""A stage for tests."""
import os, signal, time
from dataclasses import dataclass
from typing import Any
from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.progress import evaluated
from stages.core.stage import stage_main

@dataclass
class Config:
    value: int = 0
    mood: str = "well"  # well | fail | crash | die | die_once
    seconds: float = 0.0

def run(config: Config, workspace: Any) -> None:
    text = workspace.read("data/probe.txt").read_text()
    started = workspace.write("started.txt")
    first = not started.exists()
    with open(started, "a") as file:
        file.write("started\\n")
    if config.mood == "fail":
        raise DataError("probe: no luck, take another value")
    if config.mood == "crash":
        raise RuntimeError("boom")
    if config.mood == "die" or (config.mood == "die_once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    evaluated(1, float(config.value))
    time.sleep(config.seconds)
    write_json(workspace.write("reports/probe/metrics.json"), {"square": config.value**2, "length": len(text)})

main = stage_main(Config, run)
if __name__ == "__main__":
    main()
'''

SCORER = """

def _of_probe(settings: Any, sweep: Config, workspace: Workspace) -> Scores:
    nll = [settings.value + (k * settings.value % 7) / 10 for k in range(8)]
    ids = [f"q{k}" for k in range(8)]
    return Scores([1], ids, [[one] for one in ids], {"nll": [nll]}, [1.0] * 8, [])

SCORERS["probe"] = Scorer(_of_probe, ("loss",))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def copy_checkout(target: Path) -> Path:
    """The code and configuration of this checkout, with the stage `probe`."""
    for name in ("stages", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", target)
    (target / "stages/probe.py").write_text(PROBE)
    (target / "conf/probe").mkdir()
    (target / "conf/probe/default.yaml").write_text("value: 0\nmood: well\nseconds: 0.0\n")
    config = target / "conf/config.yaml"
    config.write_text(
        config.read_text().replace("  - embedder: minilm\n", "  - embedder: minilm\n  - probe: default\n")
    )
    (target / "data").mkdir()
    (target / "data/probe.txt").write_text("abc")
    return target


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "checkout")


@pytest.fixture
def scored_checkout(checkout: Path) -> Path:
    """The same, with `probe` measured on eight questions: the smaller its value, the better."""
    with open(checkout / "stages/sweeps/scoring.py", "a") as file:
        file.write(SCORER)
    return checkout


def command(*overrides: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "stages.probe", "-m", *overrides]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sweep(checkout: Path) -> Run:
    """Runs a multirun of `probe` in the checkout."""

    def run(*overrides: str, folder: Path = checkout) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*overrides), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
        )

    return run


def preset_jobs(preset: str, stage: str, *typed: str) -> list[list[str]]:
    """The overrides of each job of conf/sweep/<preset>.yaml; what is typed as well wins."""
    content = yaml.safe_load((ROOT / "conf/sweep" / f"{preset}.yaml").read_text())
    overrides = [*preset_overrides(content["hydra"]["sweeper"]["params"], stage), *typed]
    parsed = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(overrides)}
    return [list(job) for batch in BasicSweeper.split_arguments(list(parsed.values()), None) for job in batch]


def run_jobs(trial: Trial, jobs: Sequence[Sequence[str]], small: Sequence[str], metric: str, top: Path) -> SweepResults:
    """Runs them below top/sweep, one after the other, with `small` for all, and reports in top/reports."""
    folder, settings = top / "sweep", [settings_of(job) for job in jobs]
    plan = Plan(
        trial.stage,
        trial.variant,
        metric,
        13,
        200,
        "the command",
        dict(zip(job_names(settings), settings, strict=True)),
    )
    folder.mkdir(exist_ok=True)
    plan.write(folder)
    for name, job in zip(plan.jobs, jobs, strict=True):
        run_job(trial, compose([*small, *job]), job, folder / name)
    return write_report(folder, top / "reports")
