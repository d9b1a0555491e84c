"""Checkpoints that are complete or ignored, one folder per fingerprint of configuration and inputs.

    .cache/checkpoints/<stage>/<domain>/<fingerprint>/
        lock                  held while a process trains here
        checkpoint-42/        what the trainer wrote
            complete.json     written last: our progress, and the SHA-256 of every other file

A writer that is killed leaves a folder without complete.json, or with one that does not fit: such a folder is
removed, and training goes on from the one before.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_files

PREFIX = "checkpoint-"  # transformers' name for a checkpoint's folder
MARKER = "complete.json"
LOCK = "lock"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{PREFIX}{step}"


def mark_complete(folder: Path, step: int, progress: dict[str, Any]) -> None:
    """Declares a checkpoint complete; everything in it is written by now."""
    path = checkpoint_path(folder, step)
    write_json(path / MARKER, {"progress": progress, "files": sha256_files(path)})


def read_complete(folder: Path, step: int) -> dict[str, Any] | None:
    """The progress kept with a checkpoint, or None where it is not complete."""
    path = checkpoint_path(folder, step)
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    files = sha256_files(path)
    files.pop(MARKER, None)
    return dict(marker["progress"]) if files == marker["files"] else None


def steps_on_disk(folder: Path) -> list[int]:
    """Steps of the checkpoints in the folder, complete or not, the newest first."""
    names = (path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*"))
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def latest_complete(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest complete checkpoint whose best one (`progress["best_step"]`) is there too; broken ones are removed."""
    for step in steps_on_disk(folder):
        progress = read_complete(folder, step)
        if progress is not None and read_complete(folder, progress["best_step"]) is not None:
            return step, progress
        shutil.rmtree(checkpoint_path(folder, step))
    return None


def keep_only(folder: Path, *steps: int) -> None:
    """Removes the other checkpoints."""
    for step in steps_on_disk(folder):
        if step not in steps:
            shutil.rmtree(checkpoint_path(folder, step))


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises DataError where the disk cannot take `num_bytes` more: better now than in the middle of a checkpoint."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DataError(
            f"{folder}: a checkpoint needs {num_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
            "make room and run again: training goes on from the last checkpoint"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; DataError where another one trains in it. The lock dies with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another process is training exactly this; wait for it, or stop it") from error
        yield


def discard(folder: Path) -> None:
    """Removes a finished training's checkpoints, and those that abandoned trainings left beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    for other in folder.parent.iterdir():
        try:
            with locked(other):
                shutil.rmtree(other, ignore_errors=True)
        except DataError:  # somebody trains there: a sweep's other runs
            continue
