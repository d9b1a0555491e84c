"""The figures of a report: PNG, readable in a pull request in light and dark mode, the same bytes every time.

Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart; error bars are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.evaluation.intervals import Estimate

COLOURS = ("#0072B2", "#E69F00", "#009E73")
LIGHT = ("#99C7E0", "#F5D999", "#99D8C7")  # the same three for the same three models, without documents
PAIRED = tuple(colour for pair in zip(LIGHT, COLOURS, strict=True) for colour in pair)
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 10,
    "legend.frameon": False,
}
DPI = 120


def bars(path: Path, groups: Sequence[str], series: Mapping[str, Sequence[Estimate]], title: str, ylabel: str) -> None:
    """Grouped bars with their values and intervals: `series` gives one estimate for each of `groups`.

    Six series are three models without and with documents; a dot marks a value whose bar has no height.
    """
    colours = PAIRED if len(series) == len(PAIRED) else COLOURS
    figure, axes = new_figure(width=max(6.5, 0.55 * len(groups) * len(series) + 2.0))
    width = 0.8 / len(series)
    for number, (name, estimates) in enumerate(series.items()):
        places = [group + (number - (len(series) - 1) / 2) * width for group in range(len(groups))]
        values = [estimate.value for estimate in estimates]
        axes.bar(places, values, width * 0.92, color=colours[number % len(colours)], label=name)
        axes.errorbar(
            places, values, yerr=interval_errors(estimates), fmt=".", color="#222222", elinewidth=1, capsize=2, ms=4
        )
        for place, estimate in zip(places, estimates, strict=True):
            top = estimate.value if estimate.high is None else estimate.high
            axes.annotate(
                f"{estimate.value:.2f}", (place, top), (0, 3), textcoords="offset points", ha="center", size=8
            )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 1.12 * max(axes.get_ylim()[1], 0.1) if axes.get_ylim()[1] > 1.05 else 1.12)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(len(series), 6))
    save_figure(figure, path)


def curves(path: Path, panels: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Training and evaluation loss over steps, one panel for each training, from the rows of its curve.csv."""
    figure, axes = new_figure(width=4.2 * len(panels) + 0.6, num_panels=len(panels))
    for panel, (title, rows) in zip(axes if len(panels) > 1 else [axes], panels.items(), strict=True):
        steps = [row["step"] for row in rows]
        for number, (column, label) in enumerate((("train_loss", "training"), ("eval_loss", "evaluation"))):
            marker = "o" if number else "s"
            panel.plot(steps, [row[column] for row in rows], color=COLOURS[number], marker=marker, ms=3, label=label)
        panel.set_title(title, loc="left")
        panel.set_xlabel("optimizer step")
        panel.set_ylabel("loss per token (nats)")
        panel.legend()
    save_figure(figure, path)


def interval_errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the bars below and above; none where there is no interval."""
    below = [0.0 if e.low is None else max(e.value - e.low, 0.0) for e in estimates]
    above = [0.0 if e.high is None else max(e.high - e.value, 0.0) for e in estimates]
    return [below, above]


def new_figure(width: float, num_panels: int = 1, num_rows: int = 1) -> tuple[Any, Any]:
    """A figure in the report's style and its axes, an array where there are several panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(STYLE)
    from matplotlib import pyplot

    return pyplot.subplots(num_rows, num_panels, figsize=(width, 3.8 * num_rows))


def save_figure(figure: Any, path: Path) -> None:
    """Without the version of matplotlib and the date, which would change the bytes."""
    from matplotlib import pyplot

    figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
