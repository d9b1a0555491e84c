"""Kills a stage at a moment of its run, runs it again, and compares all that it writes with a run never killed.

    clone = build_clone(folder)
    outcomes = [kill_and_run_again(clone, kill) for kill in plan_kills(list(clone.stages.values()), num_kills=60, seed=1)]

A stage is started as a person starts it (`python -m stages.X`) or by a bare `dvc repro`, and run again by the same
command.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, replace

from kill_plan import Kill
from small_clone import Clone, Stage, digest, environment
from traces import GONE_WITHIN_S, MARK, handles, orphans, sights, stage_process

POLL_S = 0.002


@dataclass(frozen=True)
class Outcome:
    """What came of a kill. faults: none is what it should be."""

    kill: Kill
    after_s: float
    found: str  # what lay there at that moment
    faults: list[str]
    rerun_s: float


def kill_and_run_again(clone: Clone, kill: Kill) -> Outcome:
    """Removes the stage's outputs, starts it, kills it, starts it again; earlier, where it had ended before the kill."""
    stage = clone.stages[kill.stage]
    command = stage.command
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    if kill.through == "dvc":
        command = ["dvc", "repro", "--force", "--no-run-cache", "--single-item", stage.name]
    while (killed := _start_and_kill(clone, stage, kill, command)) is None:
        kill = replace(kill, moment=kill.moment / 2 if isinstance(kill.moment, float) else 0.5)
    after_s, found, faults = killed
    started = time.perf_counter()
    again = subprocess.run(
        command, cwd=clone.folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    if again.returncode != 0:
        faults.append(f"the second run failed: {(again.stdout + again.stderr)[-2000:]}")
    elif digest(clone.folder, stage.outputs) != clone.digests[stage.name]:
        faults.append("its outputs differ from those never killed")
    left = [*clone.folder.glob(".cache/checkpoints/**/checkpoint-*"), *clone.folder.glob(".cache/**/last")]
    if left:
        faults.append(f"checkpoints are left: {', '.join(str(path.relative_to(clone.folder)) for path in left)}")
    return Outcome(kill, after_s, found, faults, time.perf_counter() - started)


def _start_and_kill(clone: Clone, stage: Stage, kill: Kill, command: list[str]) -> tuple[float, str, list[str]] | None:
    """Seconds, what lay there, and faults; None where it had ended before its moment."""
    for output in stage.outputs:
        path = clone.folder / output
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    mark = uuid.uuid4().hex
    with open(clone.folder / ".killed.log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            cwd=clone.folder,
            env={**environment(), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started = time.perf_counter()
        found = _wait_for_moment(clone, stage, kill, process, started)
        ready = kill.through == "stage" and handles(process.pid, kill.signal)
        after_s = time.perf_counter() - started
        if process.poll() is not None:
            return None
        _send(kill, process.pid)
        faults = []
        try:
            code = process.wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            faults.append(f"it was still there {GONE_WITHIN_S:.0f} s after {kill.signal.name}")
        faults += orphans(mark)
        log.seek(0)
        output = log.read()
    if ready and kill.signal != signal.SIGKILL:
        if code != 128 + kill.signal:
            faults.append(f"exit code {code}, not {128 + kill.signal}: {output[-500:]}")
        if len(lines := output.splitlines()) != 1 or "Traceback" in output:
            faults.append(f"{len(lines)} lines, not one: {output[-1500:]}")
    return after_s, found, faults


def _send(kill: Kill, pid: int) -> None:
    """The signal; to DVC's whole group, where its stage was meant and does not run yet."""
    if kill.target == "process":
        os.kill(pid, kill.signal)
    elif kill.target == "stage" and (of_stage := stage_process(pid)):
        os.kill(of_stage, kill.signal)
    else:
        os.killpg(pid, kill.signal)


def _wait_for_moment(clone: Clone, stage: Stage, kill: Kill, process: subprocess.Popen[bytes], started: float) -> str:
    """Returns at the moment of the kill, or when the process has ended; says what lies there."""
    lock_bytes = (clone.folder / "dvc.lock").stat().st_size
    until = kill.moment * stage.wall_s if isinstance(kill.moment, float) else float("inf")
    while process.poll() is None and time.perf_counter() - started < until:
        if isinstance(kill.moment, str) and kill.moment in (seen := sights(clone.folder, stage, lock_bytes)):
            if not kill.delay_s:
                return ", ".join(seen)
            until = time.perf_counter() - started + kill.delay_s
            kill = replace(kill, moment=0.0)
        time.sleep(POLL_S)
    return ", ".join(sights(clone.folder, stage, lock_bytes))
