"""Random kills: whether a stage that was killed and run again ends with the bytes of one that never was.

    python tests/benchmarks/interruption.py --kills 60

Builds the embedded pipeline in small settings in a clone, then kills its stages one after the other (tests/interruption
says how) and writes reports/bench/interruption.md, after every kill, with commit and hardware. Exit code 1 where a kill
has left a fault. Cut off, it goes on where it was, as long as the working tree is the same: the clone and the outcomes
stay in .cache/interruption until the last kill.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from signal import Signals

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "interruption"), str(ROOT / "tests" / "benchmarks")]

from kill_plan import Kill, plan_kills  # noqa: E402
from kills import Outcome, kill_and_run_again  # noqa: E402
from pipeline import commit, hardware  # noqa: E402
from small_clone import SMALL, Clone, Stage, build_clone, working_tree  # noqa: E402

from stages.core.atomic import write_json, write_text  # noqa: E402
from stages.core.fingerprint import fingerprint  # noqa: E402
from stages.evaluation.markdown import inline, table  # noqa: E402

TARGET = ROOT / "reports" / "bench" / "interruption.md"
WORK = ROOT / ".cache" / "interruption"
# What the embedded default leaves out: a writer's samples (any texts will do) and an adapter on them
MORE = [
    "+prepare_style.variants.log={samples: reports/bench}",
    "prepare_style.min_tokens=100",
    "prepare_style.max_tokens=400",
    "+train_style.variants.log={data: style/log, truncate: true, training: {num_epochs: 2, num_threads: 1}}",
]


def built_clone(folder: Path) -> Clone:
    """The clone in `folder`; built where it is not there yet, or only half."""
    note = folder.with_suffix(".json")
    if note.exists():
        noted = json.loads(note.read_text(encoding="utf-8"))
        stages = {name: Stage(**stage) for name, stage in noted["stages"].items()}
        return Clone(folder, stages, noted["digests"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print("building the pipeline once, without a kill (about 10 min) ...", flush=True)
    clone = build_clone(folder, [*SMALL, *MORE])
    stages_now = {name: asdict(stage) for name, stage in clone.stages.items()}
    write_json(note, {"stages": stages_now, "digests": clone.digests})
    return clone


def read_outcomes(path: Path) -> list[Outcome]:
    """What run_plan has written so far."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [
        Outcome(**{**row, "kill": Kill(**{**row["kill"], "signal": Signals(row["kill"]["signal"])})}) for row in rows
    ]


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


def run_plan(
    clone: Clone, plan: Sequence[Kill], journal: Path, after_each: Callable[[Sequence[Outcome]], None]
) -> list[Outcome]:
    """The outcomes of the whole plan; those in the journal are not killed again."""
    outcomes = read_outcomes(journal)
    for kill in plan[len(outcomes) :]:
        started = time.perf_counter()
        outcomes.append(kill_and_run_again(clone, kill))
        write_text(journal, "".join(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes))
        after_each(outcomes)
        took_s = time.perf_counter() - started
        print(_progress(outcomes, len(plan), took_s), flush=True)
    return outcomes


def _progress(outcomes: Sequence[Outcome], num_kills: int, took_s: float) -> str:
    """How the last kill ended, and how long the rest will take at the mean of those so far."""
    kill, faults = outcomes[-1].kill, outcomes[-1].faults
    mean_s = sum(outcome.after_s + outcome.rerun_s for outcome in outcomes) / len(outcomes)
    left_min = (num_kills - len(outcomes)) * mean_s / 60
    return (
        f"{len(outcomes)}/{num_kills} {kill.stage} by {kill.through}, {kill.signal.name} to {kill.target}: "
        f"{'; '.join(faults) or 'same bytes'} ({took_s:.0f} s; about {left_min:.0f} min left)"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", nargs="*", default=[], help="only these, by their names in dvc.lock")
    options = parser.parse_args()
    work = WORK / fingerprint([*SMALL, *MORE], *(ROOT / name for name in working_tree()))[:16]
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "commit").exists():  # the report that is written makes the tree differ from it
        write_text(work / "commit", commit())
    clone = built_clone(work / "clone")
    stages = [stage for stage in clone.stages.values() if not options.stages or stage.name in options.stages]
    plan = plan_kills(stages, options.kills, options.seed)

    def write_report(outcomes: Sequence[Outcome]) -> None:
        revision = (work / "commit").read_text(encoding="utf-8")
        write_text(TARGET, report(outcomes, options.kills, options.seed, revision))

    outcomes = run_plan(clone, plan, work / f"outcomes-{fingerprint(plan)[:16]}.jsonl", write_report)
    shutil.rmtree(work)
    sys.exit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
