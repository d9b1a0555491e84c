"""`groundtune gc` says before it frees, and frees nothing that anything uses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from stages.cli import Commands
from stages.core.workspace import Workspace
from stages.serving.disk_use import unused_objects
from stages.serving.gc_command import gc_command

from .conftest import commit, sh


def gc(folder: Path, *arguments: str) -> Result:
    app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("gc")(gc_command(Workspace(folder, folder)))
    return CliRunner().invoke(app, ["gc", *arguments])


def objects(folder: Path) -> set[Path]:
    return {path for path in (folder / ".dvc/cache/files").rglob("*") if path.is_file()}


def rebuild(folder: Path, text: str) -> set[Path]:
    """The objects that building from another raw.txt adds."""
    before = objects(folder)
    (folder / "raw.txt").write_text(text)
    sh(folder, "dvc", "repro", "-q")
    return objects(folder) - before


def test_only_what_nothing_uses_is_freed_and_only_with_yes(project: Path) -> None:
    first = objects(project)
    sh(project, "git", "tag", "v1")
    tagged = rebuild(project, "two " * 900)
    commit(project, "two")
    sh(project, "git", "branch", "other")
    unused = rebuild(project, "three " * 800)
    current = rebuild(project, "four " * 700)

    told = gc(project)
    assert told.exit_code == 0, told.output
    assert f"{sum(path.stat().st_size for path in unused) / 1e6:.2f} MB       2 files  .dvc/cache" in told.stdout
    assert "nothing was deleted; --yes deletes it" in told.stdout
    assert objects(project) == first | tagged | unused | current

    assert "freed" in gc(project, "--yes").stdout
    assert objects(project) == first | tagged | current
    assert gc(project).stdout == "nothing to free\n"
    sh(project, "git", "checkout", "-q", "-f", "v1")
    assert sh(project, "dvc", "checkout").returncode == 0
    assert (project / "models/w.bin").read_text() == "one " * 4000


def test_what_the_workspace_is_linked_to_stays_though_the_lock_does_not_name_it(project: Path) -> None:
    """Outputs of a domain that is not configured now: only their files are there."""
    unused = rebuild(project, "three " * 800)
    kept = project / "models/other"
    kept.mkdir()
    model = max(unused, key=lambda path: path.stat().st_size)
    os.link(model, kept / "w.bin")
    rebuild(project, "four " * 700)
    gc(project, "--yes")
    assert objects(project) & unused == {model}


def test_scratch_and_runs_can_be_freed_alone(project: Path) -> None:
    for name in (".cache/embeddings/a", ".cache/note", "runs/train/1/w"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"x" * 1_000_000)
    told = gc(project, "--only", "scratch", "--only", "runs").stdout
    assert "1.00 MB       1 files  .cache/embeddings" in told and "3.00 MB  in all" in told
    gc(project, "--only", "runs", "--yes")
    assert not (project / "runs/train").exists() and (project / ".cache/note").exists()
    gc(project, "--only", "scratch", "--yes")
    assert list((project / ".cache").iterdir()) == []


def test_a_cache_outside_of_the_clone_is_freed_only_with_the_other_clones_named(project: Path, tmp_path: Path) -> None:
    sh(project, "dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    sh(project, "dvc", "repro", "-q", "--force")
    other = tmp_path / "other"
    sh(tmp_path, "git", "clone", "-q", str(project), str(other))
    sh(other, "dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    (other / "raw.txt").write_text("of the other")
    sh(other, "dvc", "repro", "-q")

    assert len(unused_objects(project)) == 2
    refused = gc(project, "--yes")
    assert refused.exit_code == 1 and "so that others may use it: name each of them with --project" in refused.stderr
    assert unused_objects(project, [other]) == []
    assert gc(project, "--yes", "--project", str(other)).stdout == "nothing to free\nfreed\n"
    assert sh(other, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


@pytest.fixture
def scratch(project: Path) -> Path:
    file = project / ".cache/note"
    file.parent.mkdir()
    file.write_bytes(b"x")
    return file


def test_nothing_is_freed_while_a_stage_runs(project: Path, scratch: Path) -> None:
    lock = {str(project / "models/w.bin"): {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
    result = gc(project, "--only", "scratch", "--yes")
    assert result.exit_code == 1 and f"a stage is running (process {os.getpid()})" in result.stderr
    assert scratch.exists()


@pytest.mark.parametrize("written", ["", "{", '{"x": {"write": {"pid": 999999999}}}'])
def test_a_lock_that_nobody_holds_stops_nothing(project: Path, scratch: Path, written: str) -> None:
    (project / ".dvc/tmp/rwlock").write_text(written)
    assert gc(project, "--only", "scratch", "--yes").exit_code == 0
    assert not scratch.exists()


def test_an_unknown_kind_and_no_repository_are_messages(project: Path, tmp_path: Path) -> None:
    assert gc(project, "--only", "models").exit_code == 2
    result = gc(tmp_path)
    assert result.exit_code == 1 and "dvc gc: ERROR: you are not inside of a DVC repository" in result.stderr
