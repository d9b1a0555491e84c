"""What the pipeline costs: from nothing, unchanged, with one parameter changed; and whether two clones agree.

    make bench          (or: python tests/benchmarks/pipeline.py --clones 1)

Works in clones of the committed tree in a temporary folder, never in the checkout. Writes reports/bench/pipeline.md
and pipeline.json with commit and hardware; ratios come from the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from stages.core.cost import cpu_name

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.1
BASE = ("params", "base_model")


@dataclass
class Run:
    """One command: wall seconds, the peak of the summed resident memory of its process tree, and its output."""

    wall_s: float
    peak_bytes: int
    output: str


def run(command: list[str], folder: Path) -> Run:
    """Runs to the end; a failing command ends the benchmark with its output."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - start
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    return Run(wall_s, peak[0], output)


def _watch(pid: int, peak: list[int]) -> None:
    try:
        root = psutil.Process(pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for process in [root, *root.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(POLL_S)
    except psutil.NoSuchProcess:
        return


def clone(target: Path) -> Path:
    """A clone of the committed tree, with an empty cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(target)], check=True)
    return target


def trivial_dag(folder: Path, num_stages: int) -> Path:
    """A DVC repository whose stages copy one small file in a chain: what `dvc repro` costs without us."""
    folder.mkdir()
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        run(command, folder)
    (folder / "f0").write_text("x\n")
    stages = {
        f"s{n}": {"cmd": f"cp f{n} f{n + 1}", "deps": [f"f{n}"], "outs": [f"f{n + 1}"]} for n in range(num_stages)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    run(["dvc", "repro", "-q"], folder)
    return folder


def ran_stages(output: str) -> list[str]:
    """The stages that a `dvc repro` really ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def locked_hashes(folder: Path) -> dict[str, dict[str, str]]:
    """Stage -> output -> hash, from dvc.lock; curves are left out, as they hold tokens per second."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {
        name: {out["path"]: out["md5"] for out in entry.get("outs", []) if not out["path"].endswith("curve.csv")}
        for name, entry in stages.items()
    }


def fastest(command: list[str], folder: Path, repeats: int = 3) -> Run:
    """The fastest of a few runs: the rest is other people's noise."""
    return min((run(command, folder) for _ in range(repeats)), key=lambda r: r.wall_s)


def measure(work: Path, num_clones: int) -> dict[str, Any]:
    """All figures, as they go into the report."""
    first = clone(work / "first")
    base, persona, regression = (
        run(["dvc", "repro", "--force", "--single-item", *BASE], first),
        run(["dvc", "repro", "evaluate"], first),
        run(["dvc", "repro", "evaluate_regression"], first),
    )
    num_stages = len(locked_hashes(first))
    unchanged = fastest(["dvc", "repro"], first)
    trivial = fastest(["dvc", "repro"], trivial_dag(work / "trivial", num_stages))
    cleaning = fastest([sys.executable, "-m", "stages.clean_qa"], first)
    run([sys.executable, "-m", "stages.compose", "train_rag_lora.lora.alpha=32"], first)
    alpha = run(["dvc", "repro"], first)
    figures: dict[str, Any] = {
        "from_nothing": {
            name: {"wall_s": r.wall_s, "peak_bytes": r.peak_bytes, "stages": ran_stages(r.output)}
            for name, r in (("base", base), ("persona", persona), ("regression", regression))
        },
        "unchanged": {"wall_s": unchanged.wall_s, "trivial_dag_wall_s": trivial.wall_s, "num_stages": num_stages},
        "alpha_changed": {"wall_s": alpha.wall_s, "stages": ran_stages(alpha.output)},
        "clean_qa": {"wall_s": cleaning.wall_s},
    }
    if num_clones > 1:
        run([sys.executable, "-m", "stages.compose"], first)
        run(["dvc", "repro"], first)  # back to the default, from the run cache
        second = clone(work / "second")
        run(["dvc", "repro", "--force", "--no-run-cache"], second)
        one, two = locked_hashes(first), locked_hashes(second)
        figures["two_clones"] = {name: one[name] == two[name] for name in sorted(one)}
    return figures


def report(figures: dict[str, Any]) -> str:
    """The figures as Markdown, beside what they have to reach."""
    nothing, unchanged, alpha = figures["from_nothing"], figures["unchanged"], figures["alpha_changed"]
    base_s, persona_s, regression_s = (nothing[name]["wall_s"] for name in ("base", "persona", "regression"))
    peak = max(part["peak_bytes"] for part in nothing.values())
    rows = [
        ("from nothing: the base model", f"{base_s:.0f} s", ""),
        ("`dvc repro evaluate` (persona) from nothing, base included", f"{base_s + persona_s:.0f} s", "<= 360 s"),
        ("`dvc repro evaluate_regression` with the base there", f"{regression_s:.0f} s", ""),
        ("the same from nothing, base included", f"{base_s + regression_s:.0f} s", "<= 300 s"),
        ("peak memory, all processes", f"{peak / 1e9:.2f} GB", "< 3 GB"),
        (
            f"`dvc repro`, nothing changed, against a trivial DAG of {unchanged['num_stages']} stages",
            f"{unchanged['wall_s']:.2f} s / {unchanged['trivial_dag_wall_s']:.2f} s = "
            f"{unchanged['wall_s'] / unchanged['trivial_dag_wall_s']:.2f}",
            "<= 1.5",
        ),
        (f"alpha changed: runs {', '.join(alpha['stages'])}", f"{alpha['wall_s']:.0f} s", "<= 90 s"),
        ("`python -m stages.clean_qa`, start to end", f"{figures['clean_qa']['wall_s']:.2f} s", "<= 1 s"),
    ]
    lines = [
        "# What the pipeline costs",
        "",
        f"`make bench` at commit {figures['commit']}, {figures['hardware']}.",
        "",
        "| | measured | aim |",
        "|---|---|---|",
        *(f"| {what} | {measured} | {aim} |" for what, measured, aim in rows),
        "",
    ]
    if clones := figures.get("two_clones"):
        differing = [name for name, same in clones.items() if not same]
        text = f"outputs that differ: {', '.join(differing)}" if differing else "every output of every stage is equal"
        lines += [f"Two clones, each from nothing, on this machine: {text}.", ""]
    return "\n".join(lines)


def commit() -> str:
    """The commit that is measured; -dirty where something is not committed."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def hardware() -> str:
    """Processor, cores and memory, as a person would say it."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores ({cpu_name()}), {memory:.0f} GiB, no GPU used"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", type=int, default=2, help="2: also compare the hashes of two clones (default)")
    parser.add_argument("--work", type=Path, help="work there and leave it (default: a temporary folder)")
    options = parser.parse_args()
    revision = commit()
    with tempfile.TemporaryDirectory(prefix="groundtune-bench-") as work:
        figures = measure(options.work or Path(work), options.clones)
    figures |= {"commit": revision, "hardware": hardware()}
    target = ROOT / "reports" / "bench"
    target.mkdir(parents=True, exist_ok=True)
    (target / "pipeline.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    (target / "pipeline.md").write_text(report(figures))
    print(report(figures))


if __name__ == "__main__":
    main()
