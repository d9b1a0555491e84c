"""How a job of a sweep stands: job.json in its folder.

{"status": "finished", "reason": "", "key": "<sha256>", "overrides": ["train_rag_lora.lora.r=8"], "pid": 4711,
 "inputs": {"data/demo/rag/train.jsonl": "<sha256>", ...}, "train_s": 21.3, "evaluate_s": 1.1}
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json

JOB_FILE = "job.json"
SCORES_FILE = "scores.json"
LOCK = ".lock"
RUNNING, FINISHED, FAILED, KILLED, PRUNED = "running", "finished", "failed", "killed", "pruned"


def read_job(folder: Path) -> dict[str, Any]:
    """An empty mapping where the job never began."""
    try:
        note: dict[str, Any] = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return note


def write_job(folder: Path, note: dict[str, Any]) -> None:
    """Whole or not at all."""
    write_json(folder / JOB_FILE, note)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Holds the folder for this process; False where another one has it. The lock goes with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def mark_dead(folder: Path, reason: str) -> bool:
    """Turns a job that says it is running, and is not, into a killed one; whether it was one."""
    note = read_job(folder)
    if note.get("status") != RUNNING:
        return False
    with held(folder) as free:
        if free:
            write_job(folder, {**note, "status": KILLED, "reason": reason})
    return free


def forget(folder: Path) -> None:
    """Takes a job back that finished with other settings or inputs, so that its result does not stand for these."""
    if read_job(folder).get("status") == FINISHED:
        (folder / JOB_FILE).unlink()
