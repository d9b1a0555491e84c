"""A dvc.lock that DVC was killed in the middle of."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals

import pytest

from stages.core.lockfile import LOCK, is_whole, mend

ROOT = Path(__file__).resolve().parents[2]
WHOLE = (ROOT / LOCK).read_text(encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a committed dvc.lock."""
    (tmp_path / LOCK).write_text(WHOLE)
    git = ["git", "-c", "user.email=test@example.org", "-c", "user.name=test"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "built"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("half", ["", WHOLE[:8], WHOLE[: WHOLE.index("md5:") + 2], "schema: '2.0'\nstages:\n  a:\n"])
def test_half_a_lock_becomes_the_last_one_in_git(repository: Path, half: str) -> None:
    (repository / LOCK).write_text(half)
    assert not is_whole(repository / LOCK)
    assert "restored from git" in mend(repository)
    assert (repository / LOCK).read_text() == WHOLE


def test_a_whole_lock_stays_and_so_does_none(repository: Path) -> None:
    changed = WHOLE + "\n"  # newer than the one in git
    (repository / LOCK).write_text(changed)
    assert mend(repository) == ""
    assert (repository / LOCK).read_text() == changed
    (repository / LOCK).unlink()
    assert mend(repository) == ""


def test_half_a_lock_that_git_never_saw_goes(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    assert "removed" in mend(tmp_path)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    ("content", "stays"), [("", False), ('{"write": {"da', False), ('{"write": {}, "read": {}}', True)]
)
def test_half_a_list_of_who_is_at_work_goes(tmp_path: Path, content: str, stays: bool) -> None:
    rwlock = tmp_path / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir(parents=True)
    rwlock.write_text(content)
    assert mend(tmp_path) == ("" if stays else ".dvc/tmp/rwlock was half written when DVC was killed: removed")
    assert rwlock.exists() is stays


DVC = [sys.executable, "-m", "dvc"]
PIPELINE = """
stages:
  first: {cmd: "%(stage)s && echo 1 > first", outs: [first]}
  second: {cmd: cp first second, deps: [first], outs: [second]}
"""


@pytest.fixture
def pipeline(repository: Path) -> Path:
    """The repository with two stages for DVC, which needs long for the large lock that it has."""
    stage = f"{sys.executable} -c 'from stages.core.lockfile import leave_watcher; leave_watcher()'"
    (repository / "dvc.yaml").write_text(PIPELINE % {"stage": stage})
    subprocess.run([*DVC, "init", "-q"], cwd=repository, check=True)
    return repository


@pytest.mark.slow
@pytest.mark.parametrize("number", [SIGKILL, SIGINT])
def test_killed_while_it_writes_a_bare_repro_goes_on(pipeline: Path, number: Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*DVC, "repro", "second"]
    process = subprocess.Popen(
        command, cwd=pipeline, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    while process.poll() is None and (pipeline / LOCK).stat().st_size == len(WHOLE.encode()):
        time.sleep(0.002)
    os.killpg(process.pid, number)
    assert process.wait() != 0
    again = subprocess.run(command, cwd=pipeline, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (pipeline / "second").read_text() == "1\n"
    end = time.perf_counter() + 30
    while list((pipeline / ".dvc" / "tmp").glob("watched-*")):  # each watcher ends with its DVC
        assert time.perf_counter() < end
        time.sleep(0.05)
