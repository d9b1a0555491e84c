"""Random kills: whether a stage that was killed and run again ends with the bytes of one that never was.

    python tests/benchmarks/interruption.py --kills 60

Builds the embedded pipeline in small settings in a clone, then kills its stages one after the other (tests/interruption
says how) and writes reports/bench/interruption.md, after every kill, with commit and hardware. Exit code 1 where a kill
has left a fault.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "interruption"), str(ROOT / "tests" / "benchmarks")]

from kills import Outcome, build_clone, kill_and_run_again, plan_kills  # noqa: E402
from pipeline import commit, hardware  # noqa: E402

from stages.evaluation.markdown import inline, table  # noqa: E402

TARGET = ROOT / "reports" / "bench" / "interruption.md"


def report(outcomes: Sequence[Outcome], num_kills: int, seed: int, revision: str) -> str:
    """The outcomes as Markdown."""
    num_whole = sum(not outcome.faults for outcome in outcomes)
    rows = []
    for number, outcome in enumerate(outcomes, 1):
        kill = outcome.kill
        rows.append(
            [
                *(str(number), kill.stage, "`dvc repro`" if kill.through == "dvc" else "`python -m`"),
                *(f"{kill.signal.name} to {kill.target}", f"{outcome.after_s:.1f} s", outcome.found),
                inline("; ".join(outcome.faults)) if outcome.faults else "same bytes",
            ]
        )
    return "\n".join(
        [
            "# Killed and run again",
            "",
            f"`python tests/benchmarks/interruption.py --kills {num_kills} --seed {seed}` at commit {revision}, {hardware()}.",
            "",
            f"{len(outcomes)} kills of {len({o.kill.stage for o in outcomes})} stages: {num_whole} ended, run again, with "
            "the bytes of a run never killed, without an orphan, and without a lock or a checkpoint left.",
            "",
            table(["", "stage", "started by", "signal", "after", "what lay there", "result"], rows),
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", nargs="*", default=[], help="only these, by their names in dvc.lock")
    options = parser.parse_args()
    revision = commit()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="groundtune-bench-") as work:
        clone = build_clone(Path(work))
        for kill in plan_kills(clone, options.kills, options.seed, options.stages):
            outcomes.append(kill_and_run_again(clone, kill))
            print(kill, outcomes[-1].found, outcomes[-1].faults or "same bytes", flush=True)
            TARGET.parent.mkdir(parents=True, exist_ok=True)
            TARGET.write_text(report(outcomes, options.kills, options.seed, revision), encoding="utf-8")
    sys.exit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
