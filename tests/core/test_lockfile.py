"""A dvc.lock that DVC was killed in the middle of."""

from __future__ import annotations

import subprocess
from pathlib import Path

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
