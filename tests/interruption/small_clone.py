"""A clone in which the whole embedded pipeline is built in small settings, without a kill; what its stages wrote, by hash.

clone = build_clone(folder)
digest(clone.folder, clone.stages["clean_qa"].outputs) == clone.digests["clean_qa"]
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
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
        return self.name.startswith(("train_", "base_model"))


@dataclass(frozen=True)
class Clone:
    """A repository in which every stage is built. digest: of each stage's outputs."""

    folder: Path
    stages: dict[str, Stage]
    digests: dict[str, str]


def working_tree() -> list[str]:
    """What git tracks, and new files; not what DVC and the benchmark of kills write."""
    names = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0")
    written = ("dvc.lock", "reports/bench/interruption.md")
    return [name for name in names if name and name not in written and (ROOT / name).is_file()]


def build_clone(folder: Path, overrides: Sequence[str] = SMALL, targets: Sequence[str] = ()) -> Clone:
    """The working tree, composed with `overrides` and built without a kill."""
    for name in working_tree():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    run(["git", "init", "-q"], folder)
    run([sys.executable, "-m", "stages.compose", *overrides], folder)
    walls_s = _timed_repro(folder, targets)
    locked = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    stages = {
        name: Stage(name, entry["cmd"].split(), [out["path"] for out in entry.get("outs", [])], walls_s[name])
        for name, entry in locked.items()
    }
    for command in (["add", "-A"], ["commit", "-qm", "built"]):
        run(["git", "-c", "user.email=test@example.org", "-c", "user.name=test", *command], folder)
    return Clone(folder, stages, {name: digest(folder, stage.outputs) for name, stage in stages.items()})


def _timed_repro(folder: Path, targets: Sequence[str]) -> dict[str, float]:
    """Stage -> wall seconds, of a `dvc repro` that runs everything."""
    repro = subprocess.Popen(
        ["dvc", "repro", *targets],
        cwd=folder,
        env=environment(),
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


def environment() -> dict[str, str]:
    """Ours, with this Python's `python` and `dvc` first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(command: Sequence[str], folder: Path) -> str:
    """What it prints. Raises RuntimeError where it fails."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
