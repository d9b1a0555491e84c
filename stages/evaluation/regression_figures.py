"""The figures of a report about numbers: predicted against true, accuracy over tolerance, loss parts, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.evaluation.figures import new_figure, save_figure
from stages.evaluation.regression_conformal import covered
from stages.evaluation.regression_results import CEILING, EXPECTED, GREEDY, HEAD, NEIGHBOURS, SplitResults, Task
from stages.evaluation.regression_scores import Floats, accuracy_within

# Okabe & Ito (2008), as the other figures have them, and further ones of theirs.
BASELINES = {CEILING: "#000000", "constant": "#BBBBBB", "nearest": "#777777", "ridge": "#CC79A7", "base": "#56B4E9"}
RECIPES = ("#0072B2", "#E69F00", "#009E73", "#D55E00")
LINES = {EXPECTED: "-", GREEDY: "--", HEAD: ":"}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NUM_TOLERANCES = 101
LOSS_PARTS = {
    "eval_token": ("cross-entropy", "#0072B2", "-"),
    "eval_number": ("number loss", "#E69F00", "-"),
    "grad_norm_token": ("gradient norm of the cross-entropy", "#0072B2", ":"),
    "grad_norm_number": ("gradient norm of the number loss", "#E69F00", ":"),
}

Rows = Sequence[Mapping[str, float]]


def scatter(path: Path, task: Task, split: SplitResults, names: Sequence[str], tolerance: float) -> None:
    """Predicted against true values of some systems' first seeds side by side; a band shows the tolerance."""
    figure, axes = new_figure(width=4.2 * len(names) + 0.6, num_panels=len(names))
    for panel, name in zip(np.atleast_1d(axes), names, strict=True):
        panel.plot([task.low, task.high], [task.low, task.high], color="#222222", lw=1)
        ends = np.array([task.low, task.high])
        panel.fill_between(ends, ends - tolerance, ends + tolerance, color="#DDDDDD", lw=0, label=f"±{tolerance:g}")
        panel.scatter(split.truth, split.systems[name].test[0], s=9, alpha=0.5, color=RECIPES[0], linewidths=0)
        panel.set(xlim=(task.low, task.high), ylim=(task.low, task.high), xlabel=f"true {task.json_field}")
        panel.set_title(label(name), loc="left")
        panel.legend(loc="upper left")
    np.atleast_1d(axes)[0].set_ylabel(f"predicted {task.json_field}")
    save_figure(figure, path)


def tolerance_curves(path: Path, task: Task, split: SplitResults, recipes: Sequence[str]) -> None:
    """The share of test pairs whose error is at most so much; of neighbours in the prompt only the best system."""
    figure, axes = new_figure(width=8.0)
    tolerances = curve_tolerances(task)
    for name, shares in accuracy_curves(task, split).items():
        if NEIGHBOURS not in name or name == split.best:
            axes.plot(tolerances, shares, label=label(name), **_line(name, split, recipes))
    axes.set(xlim=(0, tolerances[-1]), ylim=(0, 1.02), ylabel="share of test pairs")
    axes.set_xlabel(f"error in {task.json_field} at most")
    axes.set_title("Accuracy over tolerance", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def curve_tolerances(task: Task) -> Floats:
    """From 0 to a quarter of the task's range."""
    return np.linspace(0, (task.high - task.low) / 4, NUM_TOLERANCES)


def accuracy_curves(task: Task, split: SplitResults) -> dict[str, Floats]:
    """Of each system, the mean over seeds [NUM_TOLERANCES]; the ceiling first where it is known."""
    predicted = {name: system.test for name, system in split.systems.items()}
    if split.true_values is not None:
        predicted = {CEILING: split.true_values[None, :], **predicted}
    alike = np.full((1, len(split.truth)), 1 / len(split.truth))
    return {
        name: np.array(
            [
                np.mean([accuracy_within(tolerance, split.truth, row, alike)[0] for row in numbers])
                for tolerance in curve_tolerances(task)
            ]
        )
        for name, numbers in predicted.items()
    }


def loss_parts(path: Path, curves: Mapping[str, Rows]) -> None:
    """Both parts of the loss and the norms of their gradients over steps, a panel for each recipe."""
    figure, axes = new_figure(width=4.2 * len(curves) + 0.6, num_panels=len(curves))
    first = np.atleast_1d(axes)[0]
    for panel, (recipe, rows) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        if panel is not first:
            panel.sharey(first)
        for column, (name, colour, line) in LOSS_PARTS.items():
            points = [(row["step"], row[column]) for row in rows if row.get(column, 0.0) > 0]
            if points:
                panel.plot(*zip(*points, strict=True), color=colour, ls=line, marker="o", ms=2, label=name)
        panel.set_yscale("log")
        panel.set_title(recipe, loc="left")
        panel.set_xlabel("optimizer step")
    first.set_ylabel("loss, gradient norm")
    handles = {text: line for panel in np.atleast_1d(axes) for line, text in zip(*_legend(panel), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
    save_figure(figure, path)


def calibration(path: Path, task: Task, split: SplitResults, names: Sequence[str], recipes: Sequence[str]) -> None:
    """The share of test pairs within intervals of each level, before and after calibration."""
    figure, axes = new_figure(width=5.0)
    axes.plot([0, 1], [0, 1], color="#222222", lw=1)
    for name in names:
        style, found = _line(name, split, recipes), coverages(task, split, name)
        for column, (kind, line) in enumerate((("as the model has it", ":"), ("calibrated", "-"))):
            shares = [coverage[column] for coverage in found]
            axes.plot(LEVELS, shares, marker="o", ms=3, label=f"{label(name)}, {kind}", **{**style, "ls": line})
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="level of the interval", ylabel="share of test pairs in it")
    axes.set_title("Calibration", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def coverages(task: Task, split: SplitResults, name: str) -> list[tuple[float, float]]:
    """For each of LEVELS, the share of test pairs in the distribution's own intervals, and in the calibrated ones."""
    system, found = split.systems[name], []
    for level in LEVELS:
        fitted = system.calibrate(split.validation_truth, level, task.bounds)
        unmoved = [type(c)(c.kind, c.level, 0.0, c.low, c.high, c.n) for c in fitted]
        shares = [float(covered(*system.intervals(c), split.truth).mean()) for c in (unmoved, fitted)]
        found.append((shares[0], shares[1]))
    return found


def label(name: str) -> str:
    """hybrid_expected_neighbours -> hybrid, expected, neighbours"""
    return name.removesuffix(NEIGHBOURS).replace("_", ", ") + (", neighbours" if name.endswith(NEIGHBOURS) else "")


def _line(name: str, split: SplitResults, recipes: Sequence[str]) -> dict[str, Any]:
    """A colour for each model, a dash for each way of decoding."""
    colours = {**BASELINES, **{recipe: RECIPES[n % len(RECIPES)] for n, recipe in enumerate(recipes)}}
    system = split.systems.get(name)
    if system is None or not system.decoding:
        return {"color": colours[name], "ls": "-", "lw": 1.2}
    model = name.removesuffix(NEIGHBOURS).removesuffix(f"_{system.decoding}")
    return {"color": colours[model], "ls": LINES[system.decoding], "lw": 2.4 if name == split.best else 1.2}


def _legend(panel: Any) -> tuple[list[Any], list[str]]:
    handles, labels = panel.get_legend_handles_labels()
    return handles, labels
