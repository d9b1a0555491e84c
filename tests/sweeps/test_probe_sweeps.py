"""Whole sweeps of a stage that does as it is told: failures, kills, resumption, two at once. Real Hydra, real processes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.sweeps.conftest import Run, command, environment


def rows(checkout: Path, name: str) -> dict[str, dict[str, str]]:
    text = (checkout / f"reports/sweeps/probe/{name}.csv").read_text()
    return {row["job"]: row for row in csv.DictReader(text.splitlines())}


def starts(checkout: Path, name: str) -> dict[str, int]:
    """How often each job began."""
    found = (checkout / "runs/probe" / name).glob("*/started.txt")
    return {path.parent.name: len(path.read_text().splitlines()) for path in found}


def test_a_failed_job_is_a_row_and_the_sweep_goes_on_and_goes_on_later(checkout: Path, sweep: Run) -> None:
    grid = ("sweep.name=moods", "probe.mood=fail,crash,well", "probe.value=3")
    done = sweep(*grid)
    assert done.returncode == 1, done.stderr
    found = rows(checkout, "moods")
    assert {name: row["status"] for name, row in found.items()} == {
        "mood=fail": "failed",
        "mood=crash": "failed",
        "mood=well": "finished",
    }
    assert found["mood=fail"]["reason"] == "probe: no luck, take another value"
    assert found["mood=crash"]["reason"] == "RuntimeError: boom"
    assert found["mood=well"]["square"] == "9"
    assert "Traceback" not in done.stderr
    assert "RuntimeError: boom" in (checkout / "runs/probe/moods/mood=crash/error.txt").read_text()
    page = (checkout / "reports/sweeps/probe/moods.md").read_text()
    assert "1 of 3 jobs finished." in page and "| `mood=fail` | failed | probe: no luck, take another value |" in page

    assert sweep(*grid).returncode == 1
    assert starts(checkout, "moods") == {"mood=fail": 2, "mood=crash": 2, "mood=well": 1}

    (checkout / "data/probe.txt").write_text("abcd")  # an input has changed: everything runs again
    sweep(*grid)
    assert starts(checkout, "moods")["mood=well"] == 2
    assert rows(checkout, "moods")["mood=well"]["length"] == "4"


def test_a_job_whose_process_dies_gets_a_second_chance_alone_and_then_is_a_row(checkout: Path, sweep: Run) -> None:
    done = sweep("sweep.name=deaths", "probe.mood=well,die,die_once", "probe.value=1,2")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    found = rows(checkout, "deaths")
    assert {name: row["status"] for name, row in found.items()} == {
        f"mood={mood},value={value}": "killed" if mood == "die" else "finished"
        for mood in ("well", "die", "die_once")
        for value in (1, 2)
    }
    assert "SIGKILL" in found["mood=die,value=1"]["reason"]


def test_a_killed_sweep_goes_on_where_it_was(checkout: Path, sweep: Run) -> None:
    grid = ("probe.value=1,2,3,4", "probe.seconds=1.5", "hydra.launcher.n_jobs=1", "sweep.name=killed")
    process = subprocess.Popen(command(*grid), cwd=checkout, env=environment(), stderr=subprocess.DEVNULL)
    while sum(starts(checkout, "killed").values()) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = sweep(*grid)
    assert done.returncode == 0, done.stderr
    begun = starts(checkout, "killed")
    assert [begun[f"value={n}"] for n in (1, 2, 3, 4)] == [1, 1, 2, 1]
    assert {row["status"] for row in rows(checkout, "killed").values()} == {"finished"}


def test_the_same_sweep_twice_at_once_is_refused_and_another_is_not(checkout: Path, sweep: Run) -> None:
    grid = ("probe.value=1,2", "probe.seconds=120")  # longer than all that follows, on any machine
    process = subprocess.Popen(command(*grid), cwd=checkout, env=environment(), stderr=subprocess.DEVNULL)
    while not list((checkout / "runs/probe").glob("*/*/started.txt")):
        assert process.poll() is None
        time.sleep(0.05)
    again = sweep(*grid)
    assert again.returncode == 1 and "this sweep is running already" in again.stderr
    assert sweep("probe.value=1,2").returncode == 0
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    [name] = [
        path.name for path in (checkout / "runs/probe").glob("*") if "seconds" in (path / "plan.json").read_text()
    ]
    assert {row["reason"] for row in rows(checkout, name).values()} <= {"interrupted", ""}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("probe.valu=1,2",), "Could not override 'probe.valu'"),
        (("+probe.valu=1,2",), "probe: error: probe.valu: unknown key; the section probe has no such setting"),
        (("probe.value=1,x",), "probe: error: probe.value: "),
        (("probe.value=interval(1,2)",), "for an interval() give sweep.search=optuna"),
        (("probe.value=1,2", "sweep.num_question=3"), "sweep.num_question"),
        (("probe.value=1,2", "sweep.name=../x"), "is not a name for a folder"),
        (("probe.value=1,2", "sweep.search=optuna"), "and a stage that trains"),
        (("probe.value=1,2", "hydra/launcher=slurm"), "are you indeed on a slurm cluster?"),
    ],
)
def test_what_does_not_fit_is_one_error_before_any_job(
    checkout: Path, sweep: Run, overrides: tuple[str, ...], message: str
) -> None:
    done = sweep(*overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(checkout.glob("runs/probe/*/*/started.txt"))


def test_a_launcher_that_is_not_installed_names_its_extra(checkout: Path, sweep: Run) -> None:
    launcher = checkout / "conf/hydra/launcher/ray_cluster.yaml"
    launcher.write_text(launcher.read_text().replace("ray_launcher.RayLauncher", "ray_launcher.NoLauncher"))
    done = sweep("probe.value=1,2", "hydra/launcher=ray_cluster")
    assert done.returncode == 1 and "pip install 'groundtune[ray]'" in done.stderr


def test_a_ray_cluster_that_is_not_there_is_one_error(checkout: Path, sweep: Run) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
    done = sweep("probe.value=1,2", "hydra/launcher=ray_cluster", "hydra.launcher.ray.init.address=127.0.0.1:1")
    assert done.returncode == 1
    assert (
        "probe: error: hydra.launcher.ray.init.address: no Ray cluster answers at 127.0.0.1:1 " in done.stderr
        and "Traceback" not in done.stderr
    )
    assert not list(checkout.glob("runs/probe/*/*/started.txt"))


def test_jobs_may_run_in_the_process_of_the_sweep(checkout: Path, sweep: Run) -> None:
    assert sweep("probe.value=1,2", "sweep.name=basic", "hydra/launcher=basic").returncode == 0
    assert {row["status"] for row in rows(checkout, "basic").values()} == {"finished"}


@pytest.mark.slow
def test_submitit_runs_each_job_in_a_process_of_its_own(checkout: Path, sweep: Run) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    done = sweep("probe.value=1,2", "probe.mood=well,fail", "sweep.name=queue", "hydra/launcher=submitit")
    assert done.returncode == 1, done.stderr
    found = rows(checkout, "queue")
    assert [row["status"] for row in found.values()] == ["finished", "failed", "finished", "failed"]
    assert list((checkout / "runs/probe/queue/.submitit").iterdir())


def test_a_search_gives_hopeless_trials_up_and_goes_on(scored_checkout: Path, sweep: Run) -> None:
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    space = ("sweep.search=optuna", "sweep.name=search", "probe.value=int(interval(1,1000))", "hydra.launcher.n_jobs=1")
    done = sweep(*space, "sweep.num_trials=9")
    assert done.returncode == 0, done.stderr
    found = rows(scored_checkout, "search")
    assert list(found) == [f"trial-{n:03d}" for n in range(9)]
    finished = {name: row for name, row in found.items() if row["status"] == "finished"}
    pruned = {name: row for name, row in found.items() if row["status"] == "pruned"}
    assert len(finished) + len(pruned) == 9 and len(finished) >= 5
    assert all("worse than the median" in row["reason"] for row in pruned.values())
    best = min(finished.values(), key=lambda row: float(row["loss"]))
    assert min(int(row["probe.value"]) for row in finished.values()) == int(best["probe.value"])
    page = (scored_checkout / "reports/sweeps/probe/search.md").read_text()
    assert f"**value {best['probe.value']}**" in page and f"probe/search/{best['job']}" in done.stdout

    assert sweep(*space, "sweep.num_trials=10").returncode == 0
    assert len(rows(scored_checkout, "search")) == 10
    assert set(starts(scored_checkout, "search").values()) == {1}
