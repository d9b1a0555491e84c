"""sha256 of every file of an export, and the check that what is about to be loaded is what was written.

{"files": {"model.safetensors": "<sha256>", "gguf/demo.Q8_0.gguf": "<sha256>", ...}}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import known_hashes, sha256_file, sha256_files
from stages.core.workspace import Workspace
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


def verified_export(folder: Path, sha256: Callable[[Path], str] = sha256_file) -> Path:
    """The folder, every file of it checked. Raises DataError naming what is missing, changed, or not of the export.

    sha256: where files of 16 GB are loaded again and again, `KnownHashes.sha256` in place of the computing one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: no export here ({MANIFEST} is missing)")
    problems = manifest_problems(folder, sha256)
    if problems:
        raise DataError(f"{folder}: {'; '.join(problems)}; copy the export again, or run `dvc repro export_model`")
    return folder


def load_verified(folder: Path, workspace: Workspace) -> Path:
    """The folder, checked before it is loaded: every file the first time, later those that changed since."""
    with known_hashes(workspace) as hashes:
        return verified_export(folder, hashes.sha256)


def is_export(folder: Path) -> bool:
    """Whether a model folder is an export; the manifest of a base model is another one, and says of what kind it is."""
    try:
        return "kind" not in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def manifest_problems(folder: Path, sha256: Callable[[Path], str] = sha256_file) -> list[str]:
    """What differs from the manifest of a folder that has one."""
    try:
        expected: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST} is broken ({type(error).__name__}: {error})"]
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} was changed" for name in expected if name in found and sha256(found[name]) != expected[name]]
    return problems + [f"{name} is not of the export" for name in found if name not in expected and name != MANIFEST]
