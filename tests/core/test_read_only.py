"""A read-only file stays as it is, whoever runs the stage: each way in which Python opens a file for writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAYS = [
    "open(path, 'r+b')",
    "open(path, 'w')",
    "open(path, 'a')",
    "os.open(path, os.O_RDWR)",
    "os.truncate(path, 0)",
    "pathlib.Path(path).write_text('x')",
    "shutil.copyfile(__file__, path)",
    "sqlite3.connect(path).execute('create table t (x)')",
    "numpy.memmap(path, mode='r+')",
]
NEEDS = "import os, pathlib, shutil, sqlite3, sys, numpy\nfrom stages.core.read_only import keep_read_only_files\n"


def run(tmp_path: Path, line: str, mode: int) -> subprocess.CompletedProcess[str]:
    """The line in a process of its own: an audit hook stays for as long as its process."""
    file, script = tmp_path / "file", tmp_path / "script.py"
    file.write_bytes(b"kept")
    file.chmod(mode)
    script.write_text(f"{NEEDS}path = sys.argv[1]\nkeep_read_only_files()\n{line}\n")
    command = [sys.executable, str(script), str(file)]
    return subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", WAYS)
def test_a_read_only_file_cannot_be_written(tmp_path: Path, line: str) -> None:
    done = run(tmp_path, line, 0o444)
    assert done.returncode != 0
    assert "PermissionError" in done.stderr or "readonly database" in done.stderr
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("open(path, 'r+b').write(b'new ')", 0o644),
        ("print(open(path).read())", 0o444),
        ("os.replace(shutil.copy(path, path + '.new'), path)", 0o444),
        ("open(path + '.other', 'w').write('x')", 0o444),
        ("open('/dev/null', 'w').write('x')", 0o444),
    ],
)
def test_everything_else_can_be(tmp_path: Path, line: str, mode: int) -> None:
    done = run(tmp_path, line, mode)
    assert done.returncode == 0, done.stderr
