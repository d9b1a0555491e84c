"""Outputs are links to the cache: nothing lies on the disk twice, and nothing may be written through them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
import yaml

from .conftest import commit, sh

ROOT = Path(__file__).resolve().parents[2]
WRITES_INTO_ITS_INPUT = """
from stages.core.read_only import keep_read_only_files
keep_read_only_files()
with open("data/clean.bin", "r+b") as file:
    file.write(b"spoilt")
"""


def objects(cache: Path) -> dict[tuple[int, int], Path]:
    found = [path for path in (cache / "files").rglob("*") if path.is_file()]
    return {(path.stat().st_dev, path.stat().st_ino): path for path in found}


def inode(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_two_clones_with_one_cache_hold_each_file_once(project: Path, tmp_path: Path) -> None:
    cache = project / ".dvc/cache"
    other = tmp_path / "other"
    sh(tmp_path, "git", "clone", "-q", str(project), str(other))
    sh(other, "dvc", "cache", "dir", "--local", str(cache))
    sh(other, "dvc", "checkout", "-q")
    for name in ("data/clean.bin", "models/w.bin"):
        assert inode(project / name) == inode(other / name)
        assert objects(cache)[inode(project / name)].stat().st_nlink == 3


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, where no hard link leads to."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("no second file system to try")
    folder = Path(mkdtemp(dir=memory))
    yield folder
    shutil.rmtree(folder)


def test_a_cache_on_another_disk_is_linked_too(project: Path, elsewhere: Path) -> None:
    if elsewhere.stat().st_dev == project.stat().st_dev:
        pytest.skip("no second file system to try")
    sh(project, "dvc", "cache", "dir", "--local", str(elsewhere))
    sh(project, "dvc", "repro", "-q", "--force")
    model = project / "models/w.bin"
    assert model.is_symlink() and model.resolve().is_relative_to(elsewhere)


def test_a_stage_that_writes_into_an_input_fails_and_the_cache_is_whole(project: Path) -> None:
    (project / "bad.py").write_text(WRITES_INTO_ITS_INPUT)
    stages = yaml.safe_load((project / "dvc.yaml").read_text())
    stages["stages"]["bad"] = {"cmd": "python bad.py", "deps": ["data/clean.bin"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump(stages))
    commit(project, "bad")
    done = sh(project, "dvc", "repro", "bad", check=False, PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    assert "PermissionError" in done.stderr and "data/clean.bin" in done.stderr
    cached = objects(project / ".dvc/cache")[inode(project / "data/clean.bin")]
    assert cached.read_text() == "one " * 2000
