"""Checkpoints: complete or ignored, locked while in use, gone when done."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.training import checkpoints


def write(folder: Path, step: int, best_step: int | None = None, complete: bool = True) -> Path:
    path = checkpoints.checkpoint_path(folder, step)
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"w" * step)
    if complete:
        checkpoints.mark_complete(folder, step, {"best_step": best_step or step, "value": 0.1 + 0.2})
    return path


def test_the_newest_complete_one_is_taken_with_its_progress(tmp_path: Path) -> None:
    write(tmp_path, 9)
    write(tmp_path, 10, best_step=9)
    assert checkpoints.latest_complete(tmp_path) == (10, {"best_step": 9, "value": 0.1 + 0.2})


def test_a_checkpoint_without_a_marker_is_removed_and_the_one_before_taken(tmp_path: Path) -> None:
    write(tmp_path, 9)
    half = write(tmp_path, 10, complete=False)
    found = checkpoints.latest_complete(tmp_path)
    assert found is not None and found[0] == 9
    assert not half.exists()


@pytest.mark.parametrize("damage", ["truncated", "missing", "added", "marker"])
def test_a_damaged_checkpoint_is_not_taken(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 9)
    path = write(tmp_path, 10, best_step=9)
    if damage == "truncated":
        (path / "weights").write_bytes(b"w" * 9)
    elif damage == "missing":
        (path / "weights").unlink()
    elif damage == "added":
        (path / "more").touch()
    else:
        marker = path / checkpoints.MARKER
        marker.write_text(marker.read_text()[:-5])
    found = checkpoints.latest_complete(tmp_path)
    assert found is not None and found[0] == 9


def test_a_checkpoint_whose_best_one_is_gone_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, 10, best_step=9)
    assert checkpoints.latest_complete(tmp_path) is None


def test_keep_only_removes_the_others_whether_complete_or_not(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        write(tmp_path, step, complete=step != 2)
    checkpoints.keep_only(tmp_path, 10, 12)
    assert checkpoints.steps_on_disk(tmp_path) == [12, 10]


def test_the_lock_holds_against_another_process_and_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.training.checkpoints import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(DataError, match="another process"), checkpoints.locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with checkpoints.locked(tmp_path):
        pass


def test_discard_removes_abandoned_trainings_and_spares_running_ones(tmp_path: Path) -> None:
    for name in ("done", "abandoned", "running"):
        write(tmp_path / name, 3)
    with checkpoints.locked(tmp_path / "running"):
        checkpoints.discard(tmp_path / "done")
    assert [path.name for path in tmp_path.iterdir()] == ["running"]


def test_a_full_disk_is_named_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage(free=5_000_000))
    checkpoints.require_space(tmp_path, 5_000_000)
    with pytest.raises(DataError, match="needs 6 MB, 5 MB are free"):
        checkpoints.require_space(tmp_path, 6_000_000)
