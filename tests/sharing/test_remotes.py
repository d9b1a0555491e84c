"""Sharing through a remote: what one clone has pushed, another pulls and need not build."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import commit, sh
from .servers import Line, s3_server, ssh_server

pytestmark = pytest.mark.slow  # a dozen runs of DVC each

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def remote(kind: str, project: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Adds a remote of this kind to the project's settings; gives the environment that DVC needs for it."""

    def add(url: str, **settings: str) -> None:
        sh(project, "dvc", "remote", "add", "-d", "shared", url)
        for key, value in settings.items():
            sh(project, "dvc", "remote", "modify", "shared", key, value)

    if kind == "folder":
        add(str(folder / "remote"))
        yield {}
    elif kind == "s3":
        with s3_server("cache") as port:
            add("s3://cache/dvc", endpointurl=f"http://127.0.0.1:{port}")
            yield KEYS
    else:
        with ssh_server(folder / "home") as port:
            add(f"ssh://127.0.0.1:{port}{folder}/remote", user="test", keyfile=str(folder / "home/.ssh/id"))
            yield {"HOME": str(folder / "home")}


def clone(project: Path, name: str) -> Path:
    folder = project.parent / name
    sh(project.parent, "git", "clone", "-q", str(project), str(folder))
    return folder


@pytest.mark.parametrize("kind", ["folder", "s3", "ssh"])
def test_a_fresh_clone_pulls_and_runs_nothing(kind: str, project: Path, tmp_path: Path) -> None:
    with remote(kind, project, tmp_path) as environment:
        commit(project, "remote")
        sh(project, "dvc", "push", **environment)
        fresh = clone(project, "fresh")
        sh(fresh, "dvc", "pull", **environment)
    assert (fresh / "models/w.bin").read_text() == "one " * 4000
    assert "Running stage" not in sh(fresh, "dvc", "repro").stdout


def test_a_push_that_was_cut_off_is_completed_by_the_next(project: Path, tmp_path: Path) -> None:
    rng = random.Random(13)
    for number in range(30):
        file = project / "data/docs" / f"{number}.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(rng.randbytes(50_000))
    sh(project, "dvc", "add", "-q", "data/docs")
    with s3_server("cache") as server:
        line = Line(server, max_bytes=600_000)
        sh(project, "dvc", "remote", "add", "-d", "shared", "s3://cache/dvc")
        sh(project, "dvc", "remote", "modify", "shared", "endpointurl", f"http://127.0.0.1:{line.port}")
        commit(project, "remote")
        few = {**KEYS, "AWS_MAX_ATTEMPTS": "1", "AWS_RETRY_MODE": "standard"}
        failed = sh(project, "dvc", "push", "--jobs", "2", check=False, **few)
        assert failed.returncode != 0 and line.broken.is_set()
        assert "ERROR: failed to push data to the cloud" in failed.stderr

        whole = Line(server, port=line.port)
        sh(project, "dvc", "push", **few)
        fresh = clone(project, "fresh")
        sh(fresh, "dvc", "pull", **few)
        whole.cut()
    names = sorted(path.name for path in (project / "data/docs").iterdir())
    assert len(names) == 30
    assert all((fresh / "data/docs" / n).read_bytes() == (project / "data/docs" / n).read_bytes() for n in names)
    assert sh(fresh, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


def test_data_stages_on_one_machine_and_training_on_another(project: Path, tmp_path: Path) -> None:
    """raw.txt is on the laptop only, as raw material is: the GPU host gets what it needs, and gives back the model."""
    sh(project, "git", "rm", "-q", "--cached", "raw.txt")
    (project / ".gitignore").write_text("raw.txt\n")
    (project / "raw.txt").write_text("uno " * 1000)
    with remote("folder", project, tmp_path):
        sh(project, "dvc", "repro", "-q", "data")
        commit(project, "data")
        sh(project, "dvc", "push", "-q", "data")

        host = clone(project, "host")
        lacking = sh(host, "dvc", "repro", check=False)
        assert lacking.returncode != 0
        assert "failed to reproduce 'data'" in lacking.stderr and "raw.txt" in lacking.stderr

        trained = sh(host, "dvc", "repro", "--pull").stdout
        assert "Running stage 'train'" in trained and "Running stage 'data'" not in trained
        commit(host, "model")
        sh(host, "dvc", "push", "-q", "train")

    sh(project, "git", "pull", "-q", str(host), "main")
    assert "models/w.bin" in sh(project, "dvc", "status").stdout
    assert "Running stage" not in sh(project, "dvc", "repro", "--pull").stdout
    assert (project / "models/w.bin").read_text() == "uno " * 4000


def test_a_clone_knows_without_pulling_what_was_not_pushed(project: Path, tmp_path: Path) -> None:
    """The check of the shipped workflows."""
    script = project / ".ci/check_cache"
    script.parent.mkdir()
    script.write_bytes((Path(__file__).resolve().parents[2] / ".ci/check_cache").read_bytes())
    script.chmod(0o755)
    with remote("folder", project, tmp_path):
        commit(project, "remote")
        fresh = clone(project, "fresh")
        lacking = sh(fresh, ".ci/check_cache", check=False)
        assert lacking.returncode == 1
        assert lacking.stdout == "not on the remote: data/clean.bin\nnot on the remote: models/w.bin\n"
        sh(project, "dvc", "push", "-q")
        assert sh(fresh, ".ci/check_cache").stdout == ""
        assert not (fresh / "models/w.bin").exists()
    (fresh / "dvc.yaml").write_text((fresh / "dvc.yaml").read_text().replace("double.py data", "double.py  data"))
    stale = sh(fresh, ".ci/check_cache", check=False)
    assert stale.returncode == 1 and "dvc.lock is not of this tree" in stale.stderr


def test_a_past_run_is_shared_by_its_name(project: Path, tmp_path: Path) -> None:
    for key, value in (("user.name", "test"), ("user.email", "test@example.org")):
        sh(project, "git", "config", key, value)
    origin = tmp_path / "origin"
    sh(tmp_path, "git", "init", "-q", "--bare", "-b", "main", str(origin))
    with remote("folder", project, tmp_path):
        commit(project, "remote")
        sh(project, "git", "remote", "add", "origin", str(origin))
        sh(project, "git", "push", "-q", "origin", "main")
        (project / "raw.txt").write_text("tre " * 900)
        sh(project, "dvc", "exp", "run", "-n", "shorter")
        sh(project, "dvc", "exp", "push", "origin", "shorter")

        fresh = clone(origin, "fresh")
        assert "shorter" in sh(fresh, "dvc", "exp", "list", "origin").stdout
        sh(fresh, "dvc", "exp", "pull", "origin", "shorter")
        sh(fresh, "dvc", "exp", "apply", "shorter")
    assert (fresh / "models/w.bin").read_text() == "tre " * 3600
