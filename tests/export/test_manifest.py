"""What is about to be loaded is what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file
from stages.core.workspace import Workspace
from stages.export.manifest import is_export, load_verified, verified_export, write_manifest


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "gguf").mkdir(mode=0o700)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "gguf" / "m.gguf").write_bytes(b"more")
    (tmp_path / "model.safetensors").chmod(0o600)
    write_manifest(tmp_path)
    return tmp_path


def test_a_whole_export_is_verified_and_readable(export: Path) -> None:
    assert verified_export(export) == export
    assert write_manifest(export) == {
        "gguf/m.gguf": sha256_file(export / "gguf/m.gguf"),
        "model.safetensors": sha256_file(export / "model.safetensors"),
    }
    assert {path.stat().st_mode & 0o777 for path in export.rglob("*") if path.is_file()} == {0o644}
    assert (export / "gguf").stat().st_mode & 0o777 == 0o755


def test_every_difference_is_named(export: Path) -> None:
    (export / "model.safetensors").write_bytes(b"Weights")
    (export / "gguf/m.gguf").unlink()
    (export / "extra").write_text("x")
    with pytest.raises(
        DataError, match=r"gguf/m.gguf is missing; model.safetensors was changed; extra is not of the export"
    ):
        verified_export(export)


def test_a_folder_without_manifest_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no export here"):
        verified_export(tmp_path)


def test_a_loader_hashes_once_and_again_what_changed(
    export: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("workspace")
    workspace = Workspace(root, root)
    computed: list[Path] = []

    def counted(path: Path) -> str:
        computed.append(path)
        return sha256_file(path)

    monkeypatch.setattr("stages.core.fingerprint.sha256_file", counted)
    load_verified(export, workspace)
    load_verified(export, workspace)
    assert sorted(path.name for path in computed) == ["m.gguf", "model.safetensors"]
    (export / "gguf" / "m.gguf").write_bytes(b"less")
    with pytest.raises(DataError, match=r"gguf/m.gguf was changed"):
        load_verified(export, workspace)
    assert len(computed) == 3


def test_which_folder_is_an_export(tmp_path: Path) -> None:
    for name, text in {"export": '{"files": {}}', "base": '{"kind": "hub", "files": {}}', "broken": "{"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    assert [is_export(tmp_path / name) for name in ("export", "base", "broken", "none")] == [True, False, False, False]
