"""benchmark.png: all six benchmarks at a glance, a colour for each endpoint, error bars of 95 %."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.benchmarking.measuring import Benchmark
from stages.benchmarking.pipeline import RETRIEVED_HERE
from stages.benchmarking.results import Section
from stages.benchmarking.retrieval import METRICS as RETRIEVAL
from stages.evaluation.figures import COLOURS, interval_errors, new_figure, save_figure
from stages.evaluation.intervals import Estimate

NUM_COLUMNS = 3
MIB = 2**20
WRITING = ("completed", "keywords", "repetition", "lexical_diversity", "style_distance")
PIPELINE = ("found", "correct", "exact_match", "grounded")

Draw = Callable[[Any], None]
Points = list[tuple[float, Estimate]]


def draw(path: Path, found: Benchmark) -> bool:
    """Draws the panels that there are figures for; False where there are none."""
    panels = _panels(found)
    if not panels:
        return False
    num_rows = -(-len(panels) // NUM_COLUMNS)
    figure, grid = new_figure(width=15.0, num_panels=NUM_COLUMNS, num_rows=num_rows)
    axes = list(grid.flat)
    for panel, plot in zip(axes, panels, strict=False):
        plot(panel)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout(h_pad=2.5, w_pad=2.0)
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    save_figure(figure, path)
    return True


def _panels(found: Benchmark) -> list[Draw]:
    names, sections = list(found.endpoints), found.sections
    wanted: list[Draw | None] = []
    if section := sections.get("throughput"):
        wanted.append(_by_setting(section, names, "tokens_per_s", "Throughput", "tokens/s, all clients", 1))
        wanted.append(_by_setting(section, names, "first_token_p50_s", "Time to the first token (median)", "ms", 1000))
    if section := sections.get("context"):
        wanted.append(_by_length(section, names, "tokens_per_s", "Context: speed, one client", "tokens/s", 1))
        wanted.append(_by_length(section, names, "first_token_s", "Context: first token", "ms", 1000))
        wanted.append(_by_length(section, names, "memory_bytes", "Context: memory of the server", "MiB", 1 / MIB))
    if section := sections.get("writing"):
        wanted.append(_by_metric(section, "writing", names, WRITING, "Writing"))
    if section := sections.get("coherence"):
        wanted.append(_by_setting(section, names, "recalled", "Recalled, by place in the story", "share", 1))
    if section := sections.get("retrieval"):
        rows = list(section.figures["retrieval"])
        wanted.append(_by_metric(section, "retrieval", rows, RETRIEVAL, "Retrieval"))
    if section := sections.get("pipeline"):
        wanted.append(_by_metric(section, RETRIEVED_HERE, names, PIPELINE, "Full pipeline"))
    return [panel for panel in wanted if panel]


def _by_setting(
    section: Section, names: Sequence[str], metric: str, title: str, label: str, factor: float
) -> Draw | None:
    """Bars for each setting."""
    settings = [s for s, rows in section.figures.items() if any(metric in rows.get(name, {}) for name in names)]
    series = {name: [section.figures[s].get(name, {}).get(metric) for s in settings] for name in names}
    return _bars([_short(setting) for setting in settings], series, title, label, factor) if settings else None


def _by_metric(section: Section, setting: str, names: Sequence[str], metrics: Sequence[str], title: str) -> Draw | None:
    """Bars for each metric of one setting."""
    rows = section.figures.get(setting, {})
    known = [metric for metric in metrics if any(metric in rows.get(name, {}) for name in names)]
    series = {name: [rows.get(name, {}).get(metric) for metric in known] for name in names}
    headings = [metric.replace("_at_", "@").replace("mrr", "MRR").replace("_", "\n") for metric in known]
    return _bars(headings, series, title, "score", 1) if known else None


def _bars(
    groups: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], title: str, label: str, factor: float
) -> Draw:
    def plot(axes: Any) -> None:
        width = 0.8 / len(series)
        for number, (name, estimates) in enumerate(series.items()):
            there = [(place, _scaled(e, factor)) for place, e in enumerate(estimates) if e is not None]
            places = [place + (number - (len(series) - 1) / 2) * width for place, _ in there]
            found = [estimate for _, estimate in there]
            values = [estimate.value for estimate in found]
            axes.bar(places, values, width * 0.92, color=COLOURS[number], label=name)
            axes.errorbar(
                places, values, yerr=interval_errors(found), fmt="none", ecolor="#222222", elinewidth=1, capsize=2
            )
            for place, estimate in zip(places, found, strict=True):
                top = estimate.value if estimate.high is None else estimate.high
                axes.annotate(
                    _number(estimate.value), (place, top), (0, 3), textcoords="offset points", ha="center", size=8
                )
        axes.set_xticks(range(len(groups)), groups, size=9)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
        _name(axes, title, label)

    return plot


def _by_length(
    section: Section, names: Sequence[str], metric: str, title: str, label: str, factor: float
) -> Draw | None:
    """A line over prompt lengths."""
    lines: dict[str, Points] = {}
    for setting, rows in section.figures.items():
        for name in names:
            if metric in rows.get(name, {}):
                asked = rows[name].get("prompt_tokens")
                length = asked.value if asked else float(setting.split()[0])
                lines.setdefault(name, []).append((length, _scaled(rows[name][metric], factor)))
    if not lines:
        return None

    def plot(axes: Any) -> None:
        for number, name in enumerate(names):
            points = lines.get(name, [])
            xs, found = [x for x, _ in points], [estimate for _, estimate in points]
            values, errors = [estimate.value for estimate in found], interval_errors(found)
            axes.errorbar(
                xs, values, yerr=errors, color=COLOURS[number], marker="os"[number], ms=4, capsize=2, label=name
            )
        ticks = [x for x, _ in max(lines.values(), key=len)]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [_number(x) for x in ticks])
        axes.minorticks_off()
        axes.set_xlabel("tokens of the prompt")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
        _name(axes, title, label)

    return plot


def _name(axes: Any, title: str, label: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_ylabel(label)


def _short(setting: str) -> str:
    return setting.replace(" quarter", "").replace(" story", "")


def _scaled(found: Estimate, factor: float) -> Estimate:
    low, high = (None if bound is None else bound * factor for bound in (found.low, found.high))
    return Estimate(found.value * factor, low, high, found.n)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
