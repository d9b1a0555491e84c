"""A small pipeline under DVC, in a repository of its own: enough to share, to free and to break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOUBLE = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes() * 2)"
STAGES = {
    "data": {"cmd": "python double.py raw.txt data/clean.bin", "deps": ["raw.txt"], "outs": ["data/clean.bin"]},
    "train": {
        "cmd": "python double.py data/clean.bin models/w.bin",
        "deps": ["data/clean.bin"],
        "outs": ["models/w.bin"],
    },
}
KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV")


def sh(folder: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs with our Python first on the path, and with no setting of the outer DVC, AWS or git."""
    env = {key: os.environ[key] for key in KEPT if key in os.environ} | environment
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def commit(folder: Path, message: str) -> None:
    sh(folder, "git", "add", "-A")
    sh(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", message)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw.txt -> data/clean.bin -> models/w.bin, built and committed; cache settings as groundtune has them."""
    folder = tmp_path_factory.mktemp("built") / "project"
    folder.mkdir()
    sh(folder, "git", "init", "-q", "-b", "main")
    sh(folder, "dvc", "init", "-q")
    (folder / ".dvc/config").write_text('[core]\n    analytics = false\n[cache]\n    type = "hardlink,symlink"\n')
    (folder / "double.py").write_text(DOUBLE)
    (folder / "raw.txt").write_text("one " * 1000)
    for name in ("data", "models"):
        (folder / name).mkdir()
        (folder / name / ".gitignore").write_text("*.bin\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    sh(folder, "dvc", "repro", "-q")
    commit(folder, "built")
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of its own, hard links between outputs and cache included."""
    sh(tmp_path, "cp", "-a", str(built), "project")
    return tmp_path / "project"
