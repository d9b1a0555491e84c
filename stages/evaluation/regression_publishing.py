"""Writes what an evaluation of numbers found: report.md, figures, and tables for DVC's plots.

reports/<task>/plots/
    regression.csv   system,split,metric,value,low,high,n
    tolerance.csv    tolerance,system,share           of the first split
    predictions.csv  id,true,<system>,<system>        of the first pairs: the best system and the first recipe's greedy
                                                      one, each one's first seed
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from stages.core.atomic import new_folder, write_text
from stages.core.workspace import Workspace
from stages.evaluation import regression_figures as figures
from stages.evaluation.regression_report import RegressionReport
from stages.evaluation.regression_results import EXPECTED, GREEDY, Summary, Tree, as_json

DIGITS = 6
MAX_PREDICTIONS = 1000  # rows of predictions.csv: enough to look at, small enough to commit


def publish(
    workspace: Workspace,
    summary: Summary,
    tree: Tree,
    model: str,
    targets: Mapping[str, float],
    curves: Mapping[str, figures.Rows],
) -> None:
    """Figures and plots are replaced as whole folders. curves: recipe -> rows of its curve.csv."""
    folder = f"reports/{summary.task.name}"
    with new_folder(workspace.write(f"{folder}/figures")) as figures_folder:
        drawn = draw_figures(figures_folder, summary, curves)
    with new_folder(workspace.write(f"{folder}/plots")) as plots_folder:
        for name, rows in plots(summary, tree).items():
            write_text(plots_folder / f"{name}.csv", _csv(rows))
    report = RegressionReport(summary, tree, model, targets, drawn)
    write_text(workspace.write(f"{folder}/report.md"), report.text())


def draw_figures(folder: Path, summary: Summary, curves: Mapping[str, figures.Rows]) -> list[str]:
    """Draws what there are numbers for; returns the names of the figures."""
    task, split, drawn = summary.task, summary.headline, ["tolerance"]
    figures.tolerance_curves(folder / "tolerance.png", task, split, summary.recipes)
    if shown := compared(summary):
        figures.scatter(folder / "scatter.png", task, split, shown, summary.tolerances[0])
        drawn.append("scatter")
    with_intervals = [name for name in dict.fromkeys([split.best, *_expected(summary)]) if name in split.systems]
    if with_intervals:
        figures.calibration(folder / "calibration.png", task, split, with_intervals, summary.recipes)
        drawn.append("calibration")
    if curves:
        figures.loss_parts(folder / "loss_parts.png", curves)
        drawn.append("loss_parts")
    return drawn


def compared(summary: Summary) -> list[str]:
    """The best system, and the first recipe decoded greedily: what the others set out to beat."""
    reference = [f"{recipe}_{GREEDY}" for recipe in summary.recipes[:1]]
    return [name for name in dict.fromkeys([summary.headline.best, *reference]) if name in summary.headline.systems]


def _expected(summary: Summary) -> list[str]:
    return [f"{recipe}_{EXPECTED}" for recipe in summary.recipes]


def plots(summary: Summary, tree: Tree) -> dict[str, list[list[Any]]]:
    """Name of a CSV -> its rows, the header first."""
    task, split = summary.task, summary.headline
    tolerances = figures.curve_tolerances(task)
    curves = figures.accuracy_curves(task, split)
    shown = compared(summary)
    numbers = zip(split.ids, split.truth, *(split.systems[name].test[0] for name in shown), strict=True)
    return {
        "regression": [["system", "split", "metric", "value", "low", "high", "n"], *_scores(tree, task.name)],
        "tolerance": [
            ["tolerance", "system", "share"],
            *([t, name, share] for name, shares in curves.items() for t, share in zip(tolerances, shares, strict=True)),
        ],
        "predictions": [["id", "true", *shown], *map(list, islice(numbers, MAX_PREDICTIONS))],
    }


def _scores(tree: Tree, task: str) -> Iterable[list[Any]]:
    for system, splits in as_json(tree)["regression"][task].items():
        for split, found in splits.items():
            for metric, score in found.items():
                yield [system, split, metric, *(score[key] for key in ("value", "low", "high", "n"))]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([f"{cell:.{DIGITS}g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def read_curve(text: str) -> list[dict[str, float]]:
    """The rows of a curve.csv; a column that a recipe has no number for stays out of them."""
    return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(io.StringIO(text))]
