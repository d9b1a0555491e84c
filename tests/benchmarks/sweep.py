"""What a sweep costs beside the training in it: 12 jobs of train_rag_lora on the tiny base, rank x alpha.

    python tests/benchmarks/sweep.py        needs the built outputs of the demo: dvc pull, or dvc repro; 15 minutes

The same 12 jobs three times: one after the other in one process, and through joblib with one and with two at once.
Overhead is what is left of the wall time without the seconds that the stage itself ran. Writes reports/bench/sweep.md;
ratios come from the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline import commit, hardware

ROOT = Path(__file__).resolve().parents[2]
RANKS, ALPHAS = "4,8,16", "8,16,24,32"
WAYS = {
    "one process": ["hydra/launcher=basic"],
    "joblib, 1 at once": ["hydra.launcher.n_jobs=1"],
    "joblib, 2 at once": ["hydra.launcher.n_jobs=2"],
}


@dataclass(frozen=True)
class Timing:
    """Seconds: of the whole command, and summed over jobs of the training and of the evaluation on validation data."""

    wall_s: float
    train_s: float
    evaluate_s: float
    num_jobs: int

    @property
    def overhead_s(self) -> float:
        """Of a job, in a sweep that runs one at a time."""
        return (self.wall_s - self.train_s) / self.num_jobs


def measure(stage: str, way: list[str], ranks: str, num_questions: int, folder: Path) -> Timing:
    """Runs the sweep in a new folder; a failed job ends the benchmark."""
    settings = {"lora.r": ranks, "lora.alpha": ALPHAS, "training.num_epochs": 1, "training.num_threads": 1}
    overrides = [f"{stage}.{key}={value}" for key, value in settings.items()]
    overrides += [f"sweep.num_questions={num_questions}", f"hydra.sweep.dir={folder}", *way]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"stages.{stage}", "-m", *overrides], cwd=ROOT, env=environment, check=True)
    wall_s = time.perf_counter() - start
    for report in (ROOT / "reports" / "sweeps" / stage).glob(f"{folder.name}.*"):
        report.unlink()
    notes = [json.loads(path.read_text()) for path in folder.glob("*/job.json")]
    return Timing(wall_s, sum(n["train_s"] for n in notes), sum(n["evaluate_s"] for n in notes), len(notes))


def report(timings: dict[str, Timing], stage: str, command: str, revision: str) -> str:
    """The figures as Markdown, beside what they have to reach."""
    one, two = timings["joblib, 1 at once"], timings["joblib, 2 at once"]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        "# What a sweep costs",
        "",
        f"`{command}` at commit {revision}, {hardware()}; one thread a job, load at the end {load}.",
        f"{one.num_jobs} jobs: rank x alpha of {stage}, one epoch each, evaluated on validation questions.",
        "",
        "| | wall s | training s | evaluation s | overhead a job s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in timings.items():
        overhead = "" if found is two else f"{found.overhead_s:.1f}"  # two at once: seconds overlap
        lines.append(f"| {name} | {found.wall_s:.0f} | {found.train_s:.0f} | {found.evaluate_s:.0f} | {overhead} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Overhead of a job over its training, evaluation included: {timings['one process'].overhead_s:.1f} s "
            "(aim: at most 3 s).",
            f"Two at once: {one.wall_s / two.wall_s:.2f} times as fast (aim: at least 1.6).",
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default="train_rag_lora", help="train_book_lora for a quick look")
    parser.add_argument("--ranks", default=RANKS, help="fewer for a quick look")
    parser.add_argument("--questions", type=int, default=20, help="validation questions of each job")
    options = parser.parse_args()
    revision = commit()
    with tempfile.TemporaryDirectory(prefix="groundtune-bench-") as work:
        timings = {
            name: measure(options.stage, way, options.ranks, options.questions, Path(work) / f"bench-{number}")
            for number, (name, way) in enumerate(WAYS.items())
        }
    text = report(timings, options.stage, " ".join(["python", "tests/benchmarks/sweep.py", *sys.argv[1:]]), revision)
    target = ROOT / "reports" / "bench" / "sweep.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
