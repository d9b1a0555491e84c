"""benchmark.md: what was measured, where and by which command, and a table for each benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.benchmarking.measuring import Benchmark, MeasuredEndpoint
from stages.benchmarking.results import Section
from stages.evaluation import markdown
from stages.evaluation.intervals import Difference, Estimate
from stages.evaluation.markdown import inline, table

TITLES = {
    "throughput": "1. Throughput",
    "context": "2. Context scaling",
    "writing": "3. Writing quality, without a judge",
    "coherence": "4. Long-context coherence",
    "retrieval": "5. Retrieval quality",
    "pipeline": "6. Full pipeline",
}
EXPLANATIONS = {
    "throughput": "So many clients, each of which asks again as soon as it has its answer; no two prompts are alike; "
    "warm-up excluded. Tokens/s of all clients together: n counts rounds; elsewhere requests, or gaps between pieces.",
    "context": "One client; a new text each time. Tokens/s of the whole request, reading the prompt included; "
    "`writing` is the rate after the first token. Memory: the most that the server's processes held.",
    "writing": "Completed: the model ended its answer. Keywords: share of the demanded words that it used. Repetition: "
    "share of 4-grams that came before. Diversity: distinct words within every 50. Style distance: 0 is the same.",
    "coherence": "A story of invented facts in the prompt, one question about each quarter of it. Contradicted: "
    "another value of the story stands in the answer. Intervals are clustered by story.",
    "retrieval": "Test questions of the domain. Unanswered: no document is near enough; of boundary questions that is "
    "right. Intervals are clustered by source document.",
    "pipeline": "Question, documents, answer. Found: a document that holds the answer is in the prompt. Correct: the "
    "key fact stands in the answer. Grounded: its names, numbers and most words come from documents or question.",
}
# metric -> (heading, factor, digits)
COLUMNS: dict[str, tuple[str, float, int]] = {
    "tokens_per_s": ("tokens/s", 1, 1),
    "writing_tokens_per_s": ("writing, tokens/s", 1, 1),
    "prompt_tokens": ("prompt tokens", 1, 0),
    "answer_tokens": ("tokens an answer", 1, 1),
    "first_token_s": ("first token, ms", 1000, 0),
    "first_token_p50_s": ("first token p50, ms", 1000, 0),
    "first_token_p90_s": ("p90", 1000, 0),
    "first_token_p99_s": ("p99", 1000, 0),
    "between_tokens_p50_s": ("between tokens p50, ms", 1000, 1),
    "between_tokens_p90_s": ("p90", 1000, 1),
    "between_tokens_p99_s": ("p99", 1000, 1),
    "latency_p50_s": ("whole p50, ms", 1000, 0),
    "latency_p90_s": ("p90", 1000, 0),
    "latency_p99_s": ("p99", 1000, 0),
    "retrieval_p50_s": ("retrieval p50, ms", 1000, 1),
    "search_p50_s": ("search p50, ms", 1000, 0),
    "memory_bytes": ("memory, MiB", 2**-20, 0),
    "words": ("words", 1, 0),
    "style_distance": ("style distance", 1, 3),
    "nearest_distance": ("nearest distance", 1, 3),
    "boundary_unanswered": ("boundary unanswered", 1, 2),
    "judge_wins": ("judge: wins in both orders", 1, 2),
    "recall_at_1": ("recall@1", 1, 2),
    "recall_at_2": ("recall@2", 1, 2),
    "recall_at_5": ("recall@5", 1, 2),
    "mrr": ("MRR", 1, 2),
}


@dataclass(frozen=True)
class Context:
    """What stands above the figures. measured_at: a date. has_figure: benchmark.png lies beside the page."""

    domain: str
    command: str
    machine: str
    measured_at: str
    has_figure: bool


def report(found: Benchmark, context: Context) -> str:
    """The whole page."""
    names = list(found.endpoints)
    parts = [f"# Benchmark: {inline(' against '.join(names))}"]
    if found.stopped:
        parts.append(
            f"**Partial: {inline(found.stopped)}.** What follows was measured before; the same command goes on."
        )
    parts += [_circumstances(found, context), _endpoints(found.endpoints)]
    if context.has_figure:
        parts.append("![All six at a glance](benchmark.png)")
    parts.append("Brackets hold 95 % intervals, n the number of observations; `(no interval)`: so few give none.")
    for name in TITLES:
        if name in found.sections:
            parts += _section(found.sections[name], names)
        elif name in found.skipped:
            parts += [f"## {TITLES[name]}", f"Not measured: {inline(found.skipped[name])}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _circumstances(found: Benchmark, context: Context) -> str:
    lines = [
        f"- command: `{context.command}`",
        f"- machine of the client: {inline(context.machine)}; measured {context.measured_at}",
        f"- domain: {inline(context.domain)}",
    ]
    if any(not endpoint.base_url for endpoint in found.endpoints.values()):
        lines.append("- our own server ran on the same machine, and shared its cores with the client")
    return "\n".join(lines)


def _endpoints(endpoints: dict[str, MeasuredEndpoint]) -> str:
    rows = []
    for name, endpoint in endpoints.items():
        can = endpoint.can
        limit = str(can.max_context_tokens) if can.max_context_tokens else "not said"
        row = [inline(endpoint.base_url or "our own"), inline(endpoint.model), limit]
        rows.append(
            [inline(name), *row, *(("yes" if x else "no") for x in (can.streams, can.counts_tokens, can.retrieves))]
        )
    return table(["endpoint", "server", "model", "context", "streams", "counts tokens", "retrieves"], rows)


def _section(section: Section, names: Sequence[str]) -> list[str]:
    parts = [f"## {TITLES[section.name]}", EXPLANATIONS[section.name], _figures(section)]
    if section.ratios:
        parts += [f"{inline(names[1])} / {inline(names[0])}, same rounds:", _ratios(section)]
    if section.differences:
        parts += [f"{inline(names[1])} - {inline(names[0])}, same questions:", _differences(section)]
    notes = [f"- {inline(note)}" for note in section.notes]
    for name, counts in section.failures.items():
        notes += [f"- {inline(name)}: {count} x {inline(what)}" for what, count in counts.most_common(5)]
    return [*parts, "\n".join(notes)]


def _figures(section: Section) -> str:
    """A table for each set of metrics that goes together, a line for each setting and endpoint."""
    rows = [(setting, row, found) for setting, group in section.figures.items() for row, found in group.items()]
    tables = []
    for columns in _column_groups(section):
        header = ["", "", *(COLUMNS.get(metric, (metric.replace("_", " "), 1, 2))[0] for metric in columns), "n"]
        lines = [
            [
                inline(setting),
                inline(row),
                *(_cell(metric, found.get(metric)) for metric in columns),
                _n(found, columns),
            ]
            for setting, row, found in rows
            if any(metric in found for metric in columns)
        ]
        if lines:
            tables.append(table(header, lines))
    return "\n\n".join(tables)


def _column_groups(section: Section) -> list[list[str]]:
    """All metrics that there are, in order of appearance; those of times apart where there are many."""
    metrics = list(dict.fromkeys(m for group in section.figures.values() for found in group.values() for m in found))
    if len(metrics) <= 8:
        return [metrics]
    prefixes = ("first_token_p", "between_tokens_p", "latency_p")
    groups = [[m for m in metrics if m.startswith(prefix)] for prefix in prefixes]
    return [[m for m in metrics if not m.startswith(prefixes)], *(group for group in groups if group)]


def _cell(metric: str, found: Estimate | None) -> str:
    if found is None:
        return "-"
    _, factor, digits = COLUMNS.get(metric, ("", 1, 2))
    scaled = [None if x is None else x * factor for x in (found.value, found.low, found.high)]
    assert scaled[0] is not None
    if scaled[1] is None and metric == "memory_bytes":
        return f"{scaled[0]:.{digits}f}"  # a maximum
    return markdown.estimate(Estimate(scaled[0], scaled[1], scaled[2], found.n), digits)


def _n(found: dict[str, Estimate], columns: Sequence[str]) -> str:
    """The counts of this row's estimates: mostly one, a range where they differ."""
    counts = sorted({found[metric].n for metric in columns if metric in found})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _ratios(section: Section) -> str:
    rows = []
    for setting, ratios in section.ratios.items():
        for metric, found in ratios.items():
            rows.append([f"{inline(setting)}: {_heading(metric)}", markdown.estimate(found), str(found.n)])
    return table(["", "ratio", "rounds"], rows)


def _differences(section: Section) -> str:
    rows = []
    for setting, differences in section.differences.items():
        for metric, found in differences.items():
            rows.append([f"{inline(setting)}: {_heading(metric)}", _difference(found), str(found.n)])
    return table(["", "difference", "n"], rows)


def _difference(found: Difference) -> str:
    return "0 everywhere" if found.difference == found.low == found.high == 0 else markdown.difference(found)


def _heading(metric: str) -> str:
    return COLUMNS.get(metric, (metric.replace("_", " "), 1, 2))[0].removesuffix(", ms")
