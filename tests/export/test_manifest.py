"""What is about to be loaded is what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file
from stages.export.manifest import verified_export, write_manifest


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
