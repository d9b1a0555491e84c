"""The results of a sweep for people: reports/sweeps/<stage>/<sweep>.{csv,md,png}.

The CSV has a row for every job, the Markdown one for every configuration (a sweep over seeds is a configuration each
with several trainings), the best first, and says whether the best can be told from the next.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.core.workspace import ROOT
from stages.evaluation import markdown
from stages.evaluation.intervals import Estimate
from stages.sweeps.figures import draw
from stages.sweeps.metrics import METRICS, Comparison
from stages.sweeps.results import PLAN_FILE, Configuration, Job, SweepResults
from stages.sweeps.scoring import SCORERS

REPORTS = ROOT / "reports" / "sweeps"
DIGITS = 3
PLAIN = re.compile(r"[A-Za-z0-9.+-]*")
UNSAFE_IN_CODE = set("`|\n\r")
MAX_ROWS_OF_UNSCORED = 6  # metrics of a stage that trains nothing: the CSV has them all


def write_progress(folder: Path, reports: Path = REPORTS) -> None:
    """Rewrites the tables after a job, so that a sweep that still runs, or was killed, can be read.

    Only in the repository that started the sweep: a job on another machine leaves it to the sweep.
    """
    if folder.is_relative_to(ROOT) and (folder / PLAN_FILE).exists():
        results = SweepResults.read(folder)
        write_text(reports / results.plan.stage / f"{folder.name}.csv", as_csv(results))


def write_report(folder: Path, reports: Path = REPORTS) -> SweepResults:
    """Writes all three files; returns what they were made from."""
    results = SweepResults.read(folder)
    target = reports / results.plan.stage / folder.name
    write_text(Path(f"{target}.csv"), as_csv(results))
    drawn = draw(results, Path(f"{target}.png"))
    write_text(Path(f"{target}.md"), as_markdown(results, folder.name, drawn))
    return results


def as_csv(results: SweepResults) -> str:
    """A row for every job."""
    rows = [{**_row(job), "variant": results.plan.variant} for job in results.jobs]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _row(job: Job) -> dict[str, Any]:
    row: dict[str, Any] = {"job": job.folder.name, **job.settings, "status": job.status}
    row["reason"] = job.note.get("reason", "")
    for name, found in job.measured.get("metrics", {}).items():
        row |= {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
    row |= {name: job.note[name] for name in ("train_s", "evaluate_s") if name in job.note}
    return row | job.reported


def as_markdown(results: SweepResults, name: str, drawn: bool) -> str:
    """The page: verdict, configurations, what did not finish, figure."""
    plan = results.plan
    title = f"# {plan.stage}{f' @{plan.variant}' if plan.variant else ''}: {name}"
    num_finished = sum(job.status == "finished" for job in results.jobs)
    parts = [title, f"    {plan.command}", f"{num_finished} of {len(results.jobs)} jobs finished."]
    if results.configurations:
        parts += [verdict(results), _configurations(results), _how(results)]
    elif plan.stage not in SCORERS:
        parts.append(_unscored(results))
    if lost := [job for job in results.jobs if job.status != "finished"]:
        rows = [(f"`{job.folder.name}`", job.status, markdown.inline(str(job.note.get("reason", "")))) for job in lost]
        parts += ["## Not finished", markdown.table(("job", "status", "reason"), rows)]
    if drawn:
        parts.append(f"![Validation figures of every configuration]({name}.png)")
    return "\n\n".join(parts) + "\n"


def verdict(results: SweepResults) -> str:
    """Which configuration won, and what that is worth."""
    best, metric = results.configurations[0], results.plan.metric
    text = f"Best by validation {metric}: **{_label(results, best)}**, {markdown.estimate(best.estimate, DIGITS)}."
    if len(results.configurations) < 2:
        return f"{text} There is nothing to compare it with."
    second = results.configurations[1]
    text += f" Against the runner-up, {_label(results, second)}: {_against(results.versus_runner_up, metric)}"
    if alike := results.indistinguishable:
        text += f" Not to be told from the best: {len(alike)} of {len(results.configurations) - 1} others"
        text += f" ({'; '.join(_label(results, one) for one in alike[:5])}{'; ...' if len(alike) > 5 else ''})."
    return text


def _against(found: Comparison | None, metric: str) -> str:
    if found is None:
        return "no seed in common, so nothing pairs them."
    if found.over_questions is None:
        return "no interval from these data."
    unit = " (of the loss, nats a token)" if metric == "perplexity" else ""
    text = markdown.difference(found.over_questions, DIGITS) + unit
    if found.by_chance and not found.over_questions.low <= 0 <= found.over_questions.high:
        text += ", which so few documents may show by chance"
    if found.over_seeds:
        low, high = found.over_seeds
        text += f"; over {found.num_seeds} seeds [{low:+.{DIGITS}f}, {high:+.{DIGITS}f}]"
    else:
        text += "; of one training each: another seed may turn it round"
    return f"{text}. **{'Distinguishable' if found.distinguishable else 'Not distinguishable'}.**"


def _label(results: SweepResults, one: Configuration) -> str:
    return results.label(one, _value)


def _value(text: str) -> str:
    """A setting: a plain word or number as it is, anything else as code, which needs no escapes to be read."""
    if PLAIN.fullmatch(text):
        return text
    return markdown.inline(text) if set(text) & UNSAFE_IN_CODE else f"`{text}`"


def _configurations(results: SweepResults) -> str:
    plan, names = results.plan, results.configurations[0].jobs[0].measured["metrics"]
    shown = [plan.metric, *(name for name in names if name != plan.metric)]
    header = ("", *results.varied.values(), *shown, "seeds", "training s", "job")
    rows = [
        (
            str(rank),
            *(_value(one.settings.get(key, "")) for key in results.varied),
            *(markdown.estimate(_of(results, one, name), DIGITS) for name in shown),
            ", ".join(map(str, one.scores.seeds)),
            f"{sum(job.note['train_s'] for job in one.jobs):.0f}",
            f"`{one.jobs[0].folder.name}`",
        )
        for rank, one in enumerate(results.configurations, start=1)
    ]
    return markdown.table(header, rows)


def _of(results: SweepResults, one: Configuration, name: str) -> Estimate:
    return one.estimate if name == results.plan.metric else results.estimate(name, one.scores)


def _how(results: SweepResults) -> str:
    lower = ", ".join(
        name for name in results.configurations[0].jobs[0].measured["metrics"] if METRICS[name].lower_is_better
    )
    return (
        "Numbers are of the validation split, n = "
        f"{results.configurations[0].estimate.n}, with 95 % intervals (means over seeds; lower is better for {lower}). "
        "The test split has no part in the choice: the honest number of the winner is that of the report, after "
        f"`groundtune adopt` and `dvc repro`. The choice among {len(results.configurations)} and the epoch where each "
        "stopped were made on these very data, so the best number is a little too good."
    )


def _unscored(results: SweepResults) -> str:
    names: Sequence[str] = list(dict.fromkeys(name for job in results.jobs for name in job.reported))
    names = names[:MAX_ROWS_OF_UNSCORED]
    rows = [
        (f"`{job.folder.name}`", job.status, *(f"{job.reported[n]:.5g}" if n in job.reported else "" for n in names))
        for job in results.jobs
    ]
    return markdown.table(("job", "status", *names), rows)
