"""dvc.lock and Git, as far as they are read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from stages.core.dvc_lock import LockedFile, ancestry, entry_text, load_yaml, parse_lock, producer, read_lock, upstream
from stages.core.errors import DataError
from stages.core.fingerprint import known_hashes, sha256_file
from stages.core.git import commits_of, file_at, git, uncommitted
from stages.core.workspace import Workspace

LOCK = """\
schema: '2.0'
stages:
  train:
    cmd: python train.py
    deps:
    - path: data/rag
      md5: aa.dir
      size: 12
    params:
      params.yaml:
        train:
          prompt: "Answer.

            From these."
    outs:
    - path: models/demo/rag
      md5: bb.dir
  build:
    cmd: [a, b]
    outs:
    - path: data/rag
      md5: aa.dir
  export@rag:
    cmd: python export.py
    deps:
    - path: models/demo
    outs:
    - path: models/export/demo/rag
      md5: cc.dir
"""


def test_stages_with_their_files_and_parameters() -> None:
    lock = parse_lock(LOCK, "here")
    assert lock["train"].deps == (LockedFile("data/rag", "aa.dir", 12),)
    assert lock["train"].params == {"train": {"prompt": "Answer.\nFrom these."}}
    assert lock["build"].command == "a && b"


def test_what_was_made_from_what() -> None:
    lock = parse_lock(LOCK, "here")
    export = producer(lock, "models/export/demo/rag/gguf/x.gguf")
    assert export is not None and export.name == "export@rag"
    assert [stage.name for stage in upstream(lock, export)] == ["train"]  # read a folder that holds an output
    assert [stage.name for stage in ancestry(lock, export)] == ["export@rag", "train", "build"]
    assert producer(lock, "models/demo/ragged") is None


def test_the_text_of_an_entry_is_all_of_it_and_nothing_else() -> None:
    for name in ("train", "build", "export@rag"):
        assert yaml.safe_load(entry_text(LOCK, name)) == yaml.safe_load(LOCK)["stages"][name]
    assert entry_text(LOCK, "tra") == ""


@pytest.mark.parametrize("text", ["stages: [", "stages: [1]", "stages: {a: {outs: [{}]}}", "- 1"])
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"here: not a lock file of DVC"):
        parse_lock(text, "here")


def test_no_lock_yet(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == {}


def test_files_and_commits_of_git(tmp_path: Path) -> None:
    assert commits_of(tmp_path, "a.txt") == []
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "sub").mkdir()
    for number, subject in enumerate(("One", "Two | <b>")):
        (tmp_path / "sub" / "ä b.txt").write_text(str(number))
        git(tmp_path, "add", ".")
        git(tmp_path, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-qm", subject)
    assert [commit.subject for commit in commits_of(tmp_path / "sub", "ä b.txt")] == ["Two | <b>", "One"]
    assert file_at(tmp_path / "sub", "HEAD~1", "ä b.txt") == "0"
    assert file_at(tmp_path, "HEAD", "nope") is None
    with pytest.raises(DataError, match=r"git ls-tree .*nowhere"):
        file_at(tmp_path, "nowhere", "nope")
    assert uncommitted(tmp_path) == []
    (tmp_path / "sub" / "ä b.txt").unlink()
    (tmp_path / "untracked").write_text("")
    assert uncommitted(tmp_path) == ["sub/ä b.txt"]


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def counted(path: Path) -> str:
        computed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("stages.core.fingerprint.sha256_file", counted)
    workspace, file = Workspace(tmp_path, tmp_path), tmp_path / "weights"
    for text in ("one", "one", "two!", "two!"):
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        with known_hashes(workspace) as hashes:
            assert hashes.sha256(file) == sha256_file(file)
    assert computed == ["weights", "weights"]
    other = tmp_path / "other"
    other.write_text("2nd!")
    other.replace(file)  # the same name, another inode
    with pytest.raises(RuntimeError), known_hashes(workspace) as hashes:
        assert hashes.sha256(file) == sha256_file(file)
        raise RuntimeError  # what was computed until then is kept
    (tmp_path / ".cache/verified/files.json").write_text("{")
    with known_hashes(workspace) as hashes:
        assert hashes.known == {}


def test_small_numbers_are_numbers() -> None:
    text = "{a: 1e-05, b: -2E+3, c: 1.5e-7, d: 1e, e: 12, f: 2026e}"
    assert load_yaml(text) == {"a": 1e-5, "b": -2e3, "c": 1.5e-7, "d": "1e", "e": 12, "f": "2026e"}
