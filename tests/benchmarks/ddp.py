"""What a second process brings: non-pad tokens a second of one process and of two, one thread each, same steps.

    dvc repro build_rag_data merge_book && python tests/benchmarks/ddp.py

Trains train_rag_lora of the demo as trials (below a temporary folder), in turn, and writes reports/bench/ddp.md with
commit and hardware. Starting and evaluating are not counted: it is the speed that stands in a curve.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from pipeline import commit, hardware, run  # noqa: E402

from stages.evaluation.markdown import table  # noqa: E402

SETTINGS = [f"train_rag_lora.training.{value}" for value in ("batch_size=8", "accumulation=2", "num_threads=1")]
LAUNCHES = {1: ["launch=single"], 2: ["launch=ddp", "launch.num_processes=2"]}


def curve(num_processes: int, num_epochs: int, folder: Path) -> list[dict[str, float]]:
    """The curve of one training."""
    overrides = [*SETTINGS, *LAUNCHES[num_processes], f"train_rag_lora.training.num_epochs={num_epochs}"]
    os.environ |= {"OMP_NUM_THREADS": "1"}
    run([sys.executable, "-m", "stages.train_rag_lora", *overrides, f"hydra.run.dir={folder}"], ROOT)
    with open(folder / "reports/demo/train_rag_lora/curve.csv", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    curves: dict[int, list[list[dict[str, float]]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="groundtune-bench-") as work:
        for repeat in range(options.repeats):
            for number, found in curves.items():
                found.append(curve(number, options.epochs, Path(work) / f"{number}-{repeat}"))
    speeds = {n: [row["tokens_per_s"] for rows in found for row in rows] for n, found in curves.items()}
    medians = {n: statistics.median(values) for n, values in speeds.items()}
    furthest = max(
        abs(one[key] / two[key] - 1)
        for one, two in zip(curves[1][0], curves[2][0], strict=True)
        for key in ("train_loss", "eval_loss")
    )
    rows = [[str(n), f"{medians[n]:,.0f}", f"{min(values):,.0f} to {max(values):,.0f}"] for n, values in speeds.items()]
    text = "\n".join(
        [
            "# One process and two",
            "",
            f"`python tests/benchmarks/ddp.py --repeats {options.repeats} --epochs {options.epochs}` at commit "
            f"{commit()}, {hardware()}. train_rag_lora of the demo, 16 rows a step, bf16, one thread each, gloo.",
            "",
            table(["processes", "non-pad tokens a second (median)", "over epochs and repeats"], rows),
            "",
            f"Two processes are {medians[2] / medians[1]:.2f} times as fast as one (aim: 1.5). "
            f"Their losses differ by at most {furthest:.1e} of one process's.",
            "",
        ]
    )
    (ROOT / "reports" / "bench" / "ddp.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
