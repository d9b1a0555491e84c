"""What can be seen of a running stage from outside: files half written, processes that live on, handlers of signals."""

from __future__ import annotations

import os
import time
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import psutil
from small_clone import Stage

GONE_WITHIN_S = 10.0
MARK = "GROUNDTUNE_KILLED_RUN"  # in the environment of all that a started run starts

HALF_CHECKPOINT = "checkpoint half written"
PAST_CHECKPOINT = "past a checkpoint"  # of a LoRA training, which writes one an epoch: in epoch >= 1
HALF_OUTPUT = "output half written"
HALF_LOCK = "dvc.lock half written"


def sights(folder: Path, stage: Stage, lock_bytes: int) -> list[str]:
    """Which of them there are; lock_bytes: the size of dvc.lock before."""
    found = _below(folder / ".cache" / "checkpoints")
    checkpoints = [path for path in found if path.name.startswith("checkpoint-")]
    complete = [path for path in checkpoints if (path / "complete.json").exists()]
    of_base = [path.name for path in found if "base_model" in path.parts]
    halves = [path for output in stage.outputs for path in (folder / output).parent.glob(f".{Path(output).name}.tmp-*")]
    seen = {
        HALF_CHECKPOINT: len(checkpoints) > len(complete) or any(name.startswith(".last.tmp-") for name in of_base),
        PAST_CHECKPOINT: bool(complete) or "last" in of_base,
        HALF_OUTPUT: bool(halves),
        HALF_LOCK: (folder / "dvc.lock").stat().st_size < lock_bytes,
    }
    return [name for name, there in seen.items() if there]


def _below(folder: Path) -> list[Path]:
    """Files and folders at any depth; those that go meanwhile may be missing, where Path.glob would raise."""
    return [Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)]


def stage_process(dvc: int) -> int:
    """The process of the stage that DVC runs; 0 where it runs none yet."""
    try:
        children = psutil.Process(dvc).children(recursive=True)
        found = [child for child in children if any(part.startswith("stages.") for part in child.cmdline())]
    except psutil.Error:
        return 0
    return int(found[0].pid) if found else 0


def handles(pid: int, number: Signals) -> bool:
    """Whether the process has a handler for a signal: before, Python itself is starting."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    # at first SIGINT has a handler of Python's
    return all(caught >> (signal - 1) & 1 for signal in {number, SIGTERM if number == SIGINT else number})


def orphans(mark: str) -> list[str]:
    """What lives on of a killed run; empty within a few seconds."""
    end = time.perf_counter() + GONE_WITHIN_S
    while (alive := _marked(mark)) and time.perf_counter() < end:
        time.sleep(0.1)
    return [f"lives on: {' '.join(process.cmdline()[:6])}" for process in alive if process.is_running()]


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found
