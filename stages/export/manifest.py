"""sha256 of every file of an export, and the check that what is about to be loaded is what was written.

{"files": {"model.safetensors": "<sha256>", "gguf/demo.Q8_0.gguf": "<sha256>", ...}}
"""

from __future__ import annotations

import json
from pathlib import Path

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_files
from stages.training.lora import READABLE

MANIFEST = "manifest.json"
FOLDER_MODE = 0o755


def write_manifest(folder: Path) -> dict[str, str]:
    """Writes manifest.json over all files below `folder`, and makes all of them readable for a server's user."""
    for path in folder.rglob("*"):
        path.chmod(FOLDER_MODE if path.is_dir() else READABLE)
    folder.chmod(FOLDER_MODE)
    files = {name: digest for name, digest in sha256_files(folder).items() if name != MANIFEST}
    write_json(folder / MANIFEST, {"files": files})
    (folder / MANIFEST).chmod(READABLE)
    return files


def verified_export(folder: Path) -> Path:
    """The folder, every file of it checked. Raises DataError naming what is missing, changed, or not of the export."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: no export here ({MANIFEST} is missing)")
    expected: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
    found = {name: digest for name, digest in sha256_files(folder).items() if name != MANIFEST}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} was changed" for name in expected if name in found and found[name] != expected[name]]
    problems += [f"{name} is not of the export" for name in found if name not in expected]
    if problems:
        raise DataError(f"{folder}: {'; '.join(problems)}; copy the export again, or run `dvc repro export_model`")
    return folder
