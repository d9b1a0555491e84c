"""A review as the Markdown of a pull request: what must be seen first, then the tables, long ones folded.

Names and values come from configuration and reports that anybody may have written: they stand in code spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stages.evaluation import markdown
from stages.evaluation.intervals import Estimate
from stages.serving.review.cost_diff import Cost, CostChange
from stages.serving.review.data_diff import COUNTS, DataChange
from stages.serving.review.metrics_diff import SAME, MetricChange
from stages.serving.review.params_diff import ABSENT, ParamChange
from stages.serving.review.plots import Plot
from stages.serving.review.review import Review
from stages.serving.review.stages_diff import StageChange
from stages.serving.terminal import printable

MARKER = "<!-- groundtune review -->"  # by which a workflow finds its comment again
MAX_CHARS = 65_000  # of a comment on GitHub
MAX_CELL = 160
NOTE = (
    f'"{SAME}": the 95 % intervals overlap. The runs are compared by summaries, not question by question, which is '
    "careful: a small difference may be there. A metric without an interval is compared as it is."
)


def page(review: Review, max_rows: int) -> str:
    """The whole page; sections without content are left out."""
    parts = [MARKER, "## Review", *_head(review)]
    for title, body in _sections(review, max_rows):
        if body:
            parts += [f"### {title}", body]
    text = "\n\n".join(parts) + "\n"
    if len(text) <= MAX_CHARS:
        return text
    kept = text[:MAX_CHARS].rpartition("\n")[0]
    unfold = "\n\n</details>" if kept.count("<details>") > kept.count("</details>") else ""
    return f"{kept}{unfold}\n\n(cut here: see `groundtune review --json`)\n"


def _head(review: Review) -> Iterator[str]:
    against = f"Against {_code(review.base.name)} ({review.base.commit[:7]})"
    if review.uncommitted:
        against += f", with uncommitted changes in {len(review.uncommitted)} files"
    yield against + "."
    if not review.passed:
        yield "**Regressions**\n" + "\n".join(_regressions(review))
    elif review.base_has_metrics:
        yield "No regression beyond the tolerances in conf/review."
    if not review.base_has_metrics:
        yield "The base has no metrics: everything measured is new, and nothing can be compared."
    if unsure := [change for change in review.metrics if change.lost_too_much and not change.regression]:
        names = ", ".join(_code(change.name) for change in unsure)
        yield f"Worse than the tolerance, but within the intervals: {names}."
    if review.stale:
        lines = [f"- {_code(name)}: {_listed(found, 4)}" for name, found in review.stale.items()]
        yield "**The reports are not of this tree**: `dvc repro` has not run on\n" + "\n".join(lines)


def _regressions(review: Review) -> Iterator[str]:
    for change in review.regressions:
        numbers = f"{_number(change.before)} → {_number(change.after)}"
        yield f"- {_code(change.name)}: {numbers} ({change.verdict})"
    for cost in review.too_costly:
        yield f"- cost of {_code(cost.stage)}: {' and '.join(cost.exceeded)} beyond the limit"


def _sections(review: Review, max_rows: int) -> Iterator[tuple[str, str]]:
    yield "Parameters", _params(review.params, max_rows)
    yield "Metrics", _metrics(review.metrics, max_rows)
    yield "Data", _data(review)
    stages = [_stage_row(stage) for stage in review.stages]
    yield "Stages", _table(["stage", "code", "params", "data", "outputs"], stages, max_rows)
    yield "Cost", _table(["stage", "time", "peak memory", "device"], map(_cost_row, review.cost), max_rows)
    yield "Figures", "\n\n".join(map(_figure, review.plots))


def _params(changes: Sequence[ParamChange], max_rows: int) -> str:
    """Values that changed in the open; settings that are new or gone folded."""
    header = ["key", "before", "after"]
    changed = [_param_row(change) for change in changes if ABSENT not in (change.before, change.after)]
    others = [_param_row(change) for change in changes if ABSENT in (change.before, change.after)]
    folded = _folded(f"{len(others)} settings are new or gone", _table(header, others, max_rows)) if others else ""
    return "\n\n".join(filter(None, [_table(header, changed, max_rows), folded]))


def _param_row(change: ParamChange) -> list[str]:
    where = f" in {len(change.places)} places" if len(change.places) > 1 else ""
    return [_code(change.key) + where, _code(change.before), _code(change.after)]


def _metrics(changes: Sequence[MetricChange], max_rows: int) -> str:
    """Guarded ones in the open, the rest folded."""
    header = ["metric", "before", "after", "verdict"]
    guarded = [_metric_row(change) for change in changes if change.guarded]
    others = [_metric_row(change) for change in changes if not change.guarded]
    parts = [_table(header, guarded, max_rows)]
    if others:
        parts.append(_folded(f"{len(others)} other metrics that differ", _table(header, others, max_rows)))
    return "\n\n".join([*filter(None, parts), NOTE]) if changes else ""


def _metric_row(change: MetricChange) -> list[str]:
    verdict = f"**{change.verdict}**" if change.regression else change.verdict
    return [_code(change.name), _number(change.before), _number(change.after), verdict]


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None and isinstance(estimate.value, int):
        return str(estimate.value)
    digits = 3 if abs(estimate.value) < 10 else 1
    return f"{estimate.value:.{digits}f}" if estimate.low is None else markdown.estimate(estimate, digits)


def _data(review: Review) -> str:
    rows = [_data_row(change) for change in review.data]
    parts = [_table(["stage", "read", "kept", "rejected", "reasons"], rows, len(rows))]
    if same := [_code(split.name) for split in review.splits if not split.changed]:
        parts.append(f"Split unchanged: {', '.join(same)}.")
    if new := [_code(split.name) for split in review.splits if split.before is None]:
        parts.append(f"Split new: {', '.join(new)}.")
    for split in review.splits:
        if split.changed and split.before is not None:
            hashes = _arrow(split.before[:12], split.after and split.after[:12])
            parts.append(f"**Split changed**: {_code(split.name)} ({hashes}); the questions are others than before.")
    return "\n\n".join(filter(None, parts))


def _data_row(change: DataChange) -> list[str]:
    counts = [_arrow((change.before or {}).get(key), (change.after or {}).get(key)) for key in COUNTS]
    reasons = [f"{reason} {before} → {after}" for reason, (before, after) in change.reasons.items()]
    return [_code(change.stage), *counts, _listed(reasons, 6)]


def _arrow(before: object, after: object) -> str:
    if before == after:
        return str(after)
    return " → ".join("-" if value is None else str(value) for value in (before, after))


def _stage_row(change: StageChange) -> list[str]:
    if change.state != "changed":
        return [_code(change.stage), change.state, "", "", ""]
    return [
        _code(change.stage),
        *(_listed(found, 3) for found in (change.code, change.params, change.data, change.outputs)),
    ]


def _cost_row(change: CostChange) -> list[str]:
    sides = (change.before, change.after)
    times = " → ".join("-" if cost is None else f"{cost.wall_s:.1f} s" for cost in sides)
    memory = " → ".join("-" if cost is None else _memory(cost) for cost in sides)
    devices = [cost.device for cost in sides if cost is not None]
    return [_code(change.stage), times, memory, " → ".join(dict.fromkeys(map(_code, devices)))]


def _memory(cost: Cost) -> str:
    gpu = f" + {cost.peak_gpu_bytes / 1e9:.2f} GB GPU" if cost.peak_gpu_bytes else ""
    return f"{cost.peak_memory_bytes / 1e9:.2f} GB{gpu}"


def _figure(plot: Plot) -> str:
    name = _code(plot.name)
    if plot.before is None and plot.after is not None:
        return f"{name}\n\n![{name}]({plot.after})"
    pictures = " | ".join("-" if link is None else f"![{name}]({link})" for link in (plot.before, plot.after))
    return f"{name}\n\n| before | after |\n| --- | --- |\n| {pictures} |"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], max_rows: int) -> str:
    """Cut at max_rows with the rest counted; "" without rows."""
    found = list(rows)
    if not found:
        return ""
    more = f"\n\n... and {len(found) - max_rows} more" if len(found) > max_rows else ""
    return markdown.table(header, found[:max_rows]) + more


def _code(text: str) -> str:
    """A code span in which nothing has an effect, in a table neither; a long text is cut."""
    text = printable(" ".join(text.split())).replace("`", "'").replace("|", "\\|")
    return f"`{text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + '…'}`" if text else ""


def _listed(names: Sequence[str], limit: int) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(_code, names[:limit])) + more


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
