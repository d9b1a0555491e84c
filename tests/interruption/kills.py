"""Kills a stage at a moment of its run, runs it again, and compares all that it writes with a run never killed.

    clone = build_clone(folder)
    plan = plan_kills(clone, num_kills=60, seed=1)
    outcomes = [kill_and_run_again(clone, kill) for kill in plan]

The clone has the whole embedded pipeline in small settings, built by `dvc repro` without a kill. A stage is started as
a person starts it (`python -m stages.X`) or by DVC; the signal goes to the whole process group, as Ctrl-C does, or to
the started process alone, as `kill` does. `dvc repro` is run again as `make repro` does it. The moment is a share of the stage's run time, or the sight of something: a
checkpoint half written, an epoch done, an output half written.
"""

from __future__ import annotations

import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.002
GONE_WITHIN_S = 10.0
MARK = "GROUNDTUNE_KILLED_RUN"  # in the environment of all that a started run starts
TIME_COLUMN = "tokens_per_s"  # of a curve: the only thing that a stage writes about time

SMALL = [
    "model.name=small",
    "base_model.recipe.phases=[{num_steps: 8, batch_size: 4, length: 128, max_documents: 1, shares: {recall: 0.7, "
    "copy: 0.3}}, {num_steps: 8, batch_size: 2, length: 256, max_documents: 2, shares: {chat: 1.0}}]",
    "base_model.recipe.checkpoint_every_steps=4",
    "make_demo.world.num_entities=24",
    "make_demo.world.num_qa=120",
    "make_demo.world.num_interviews=12",
    "make_demo.world.num_article_chunks=80",
    "make_demo.world.num_book_chunks=80",
    *(f"train_{what}_lora.training.{key}" for what in ("book", "rag") for key in ("num_epochs=2", "num_threads=1")),
    "evaluate.limit=10",
    "evaluate.num_resamples=100",
    "evaluate.max_new_tokens=8",
    "evaluate.num_threads=1",
    "make_contracts.num_contracts=60",
    "regression.sql.max_pairs=400",
    "load_pairs.max_pairs={train: 48, validation: 12, test: 16}",
    "train_regression.seeds={by_contract: [13], by_pair: [13]}",
    "train_regression.training.num_epochs=2",
    "evaluate_regression.limit=16",
    "evaluate_regression.num_unconstrained=4",
    "evaluate_regression.num_resamples=100",
]


@dataclass(frozen=True)
class Stage:
    """A stage of the clone's dvc.lock, and how long a run by DVC took."""

    name: str
    command: list[str]
    outputs: list[str]
    wall_s: float

    @property
    def trains(self) -> bool:
        return self.name.startswith("train_")


@dataclass(frozen=True)
class Clone:
    """A repository in which every stage is built. digest: of each stage's outputs."""

    folder: Path
    stages: dict[str, Stage]
    digests: dict[str, str]


@dataclass(frozen=True)
class Kill:
    """through: stage or dvc. target: group or process. moment: a share of the run time, or what to wait for."""

    stage: str
    through: str
    target: str
    signal: signal.Signals
    moment: float | str


@dataclass(frozen=True)
class Outcome:
    """What came of a kill. faults: none is what it should be."""

    kill: Kill
    after_s: float
    found: str  # what lay there at that moment
    faults: list[str]
    rerun_s: float


def build_clone(folder: Path, overrides: Sequence[str] = SMALL, targets: Sequence[str] = ()) -> Clone:
    """The working tree (what git tracks, and new files), composed with `overrides` and built without a kill."""
    names = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    _run(["git", "init", "-q"], folder)
    _run([sys.executable, "-m", "stages.compose", *overrides], folder)
    walls_s = _timed_repro(folder, targets)
    locked = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    stages = {
        name: Stage(name, entry["cmd"].split(), [out["path"] for out in entry.get("outs", [])], walls_s[name])
        for name, entry in locked.items()
    }
    for command in (["add", "-A"], ["commit", "-qm", "built"]):
        _run(["git", "-c", "user.email=test@example.org", "-c", "user.name=test", *command], folder)
    return Clone(folder, stages, {name: digest(folder, stage.outputs) for name, stage in stages.items()})


def _timed_repro(folder: Path, targets: Sequence[str]) -> dict[str, float]:
    """Stage -> wall seconds, of a `dvc repro` that runs everything."""
    repro = subprocess.Popen(
        ["dvc", "repro", *targets],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    starts: list[tuple[str, float]] = []
    output = ""
    for line in repro.stdout or ():
        output += line
        if line.startswith("Running stage '"):
            starts.append((line.split("'")[1], time.perf_counter()))
    if repro.wait() != 0:
        raise RuntimeError(f"dvc repro failed in {folder}:\n{output}")
    ends = [start for _, start in starts[1:]] + [time.perf_counter()]
    return {name: end - start for (name, start), end in zip(starts, ends, strict=True)}


def digest(folder: Path, outputs: Sequence[str]) -> str:
    """One hash over the files of some outputs; a curve's column of speeds is left out."""
    found = hashlib.sha256()
    for output in outputs:
        path = folder / output
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            found.update(f"{file.relative_to(folder)}\0".encode() + _content(file) + b"\0")
    return found.hexdigest()


def _content(file: Path) -> bytes:
    if file.name != "curve.csv":
        return file.read_bytes()
    with open(file, encoding="utf-8", newline="") as lines:
        rows = [{key: value for key, value in row.items() if key != TIME_COLUMN} for row in csv.DictReader(lines)]
    return repr(rows).encode()


def plan_kills(clone: Clone, num_kills: int, seed: int, names: Sequence[str] = ()) -> list[Kill]:
    """Kills of all stages in turn (or of `names`), the other choices drawn; every other training waits for a sight."""
    drawn = random.Random(seed)
    chosen = [stage for stage in clone.stages.values() if not names or stage.name in names]
    plan = []
    for number in range(num_kills):
        stage = chosen[number % len(chosen)]
        through, target = drawn.choice(["stage", "dvc"]), drawn.choice(["group", "process"])
        signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
        if (through, target) == ("dvc", "process"):
            signals.pop()  # DVC ignores Ctrl-C while a stage runs: it is the stage that has to end
        sights = ["checkpoint half written", "output half written", "epoch done"] if stage.trains else []
        moment: float | str = drawn.uniform(0.0, 1.0)
        if sights and drawn.random() < 0.75:
            moment = drawn.choice(sights)
        plan.append(Kill(stage.name, through, target, drawn.choice(signals), moment))
    return plan


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
    if kill.through == "dvc" and (mended := _run([sys.executable, "-m", "stages.core.lockfile"], clone.folder)):
        found = ", ".join(filter(None, [found, mended.strip()]))
    again = subprocess.run(
        command, cwd=clone.folder, env=_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    if again.returncode != 0:
        faults.append(f"the second run failed: {(again.stdout + again.stderr)[-2000:]}")
    elif digest(clone.folder, stage.outputs) != clone.digests[stage.name]:
        faults.append("its outputs differ from those never killed")
    if leftovers := [
        str(p.relative_to(clone.folder)) for p in (clone.folder / ".cache").glob("checkpoints/**/checkpoint-*")
    ]:
        faults.append(f"checkpoints are left: {', '.join(leftovers)}")
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
            env={**_environment(), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started = time.perf_counter()
        found = _wait_for_moment(clone, stage, kill, process, started)
        ready = kill.through == "stage" and _handles(process.pid, kill.signal)
        after_s = time.perf_counter() - started
        if process.poll() is not None:
            return None
        (os.killpg if kill.target == "group" else os.kill)(process.pid, kill.signal)
        faults = []
        try:
            code = process.wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            faults.append(f"it was still there {GONE_WITHIN_S:.0f} s after {kill.signal.name}")
        faults += _orphans(mark)
        log.seek(0)
        output = log.read()
    if ready and kill.signal != signal.SIGKILL:
        if code != 128 + kill.signal:
            faults.append(f"exit code {code}, not {128 + kill.signal}: {output[-500:]}")
        if len(lines := output.splitlines()) != 1 or "Traceback" in output:
            faults.append(f"{len(lines)} lines, not one: {output[-1500:]}")
    return after_s, found, faults


def _wait_for_moment(clone: Clone, stage: Stage, kill: Kill, process: subprocess.Popen[bytes], started: float) -> str:
    """Returns at the moment of the kill, or when the process has ended; says what lies there."""
    until = kill.moment * stage.wall_s if isinstance(kill.moment, float) else float("inf")
    while process.poll() is None and time.perf_counter() - started < until:
        if isinstance(kill.moment, str) and kill.moment in (seen := _sights(clone.folder, stage)):
            return ", ".join(seen)
        time.sleep(POLL_S)
    return ", ".join(_sights(clone.folder, stage))


def _sights(folder: Path, stage: Stage) -> list[str]:
    checkpoints = list((folder / ".cache" / "checkpoints").glob("**/checkpoint-*"))
    complete = [path for path in checkpoints if (path / "complete.json").exists()]
    halves = [path for output in stage.outputs for path in (folder / output).parent.glob(f".{Path(output).name}.tmp-*")]
    seen = {
        "checkpoint half written": len(checkpoints) > len(complete),
        "epoch done": bool(complete),
        "output half written": bool(halves),
    }
    return [name for name, there in seen.items() if there]


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for a signal: before, Python itself is starting."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    python_handles = number != signal.SIGINT or bool(
        caught >> (signal.SIGTERM - 1) & 1
    )  # KeyboardInterrupt is Python's
    return bool(caught >> (number - 1) & 1) and python_handles


def _orphans(mark: str) -> list[str]:
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


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
