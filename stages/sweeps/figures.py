"""A sweep in one figure: the metric over the two settings that vary as a heat map, else ranked
with its intervals; beside it all evaluation curves overlaid."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.evaluation.figures import COLOURS, interval_errors, new_figure, save_figure
from stages.evaluation.regression_publishing import read_curve

if TYPE_CHECKING:
    from stages.sweeps.results import Configuration, SweepResults

Curve = Sequence[Mapping[str, float]]
Panel = Callable[[Any], None]

MAX_RANKED = 12
NUM_NAMED = 3
LABEL_CHARS = 30
GREY = "#888888"
LOG_FROM = 10  # times the smallest value: else it would leave no room between the others


def draw(results: SweepResults, path: Path) -> bool:
    """Writes the figure; False where there is nothing to show (and an older figure goes)."""
    panels = _panels(results)
    if not panels:
        path.unlink(missing_ok=True)
        return False
    figure, axes = new_figure(width=5.6 * len(panels) + 0.6, num_panels=len(panels))
    for draw_panel, panel in zip(panels, axes if len(panels) > 1 else [axes], strict=True):
        draw_panel(panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    return True


def _panels(results: SweepResults) -> list[Panel]:
    if not results.configurations:
        return []
    curves = [_curves(one) for one in results.configurations]
    panels: list[Panel] = []
    if _is_grid(results):
        panels.append(lambda panel: _heat_map(panel, results))
    elif len(results.configurations) > 1:
        panels.append(lambda panel: _ranking(panel, results))
    if any(curves):
        panels.append(lambda panel: _overlay(panel, results, curves))
    return panels


def _is_grid(results: SweepResults) -> bool:
    """Of two settings, whose values come together; those of a search are nearly all different."""
    nums = [len(values_of(results, key)) for key in results.varied]
    return len(nums) == 2 and nums[0] * nums[1] <= 2 * len(results.jobs)


def values_of(results: SweepResults, key: str) -> list[str]:
    """The values that a setting had: numbers by size, others in the order of the sweep."""
    values = list(dict.fromkeys(job.settings[key] for job in results.jobs if key in job.settings))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _heat_map(panel: Any, results: SweepResults) -> None:
    import numpy as np

    keys = list(results.varied)
    xs, ys = (values_of(results, key) for key in keys)
    found = {tuple(one.settings[key] for key in keys): one.estimate.value for one in results.configurations}
    grid = np.array([[found.get((x, y), np.nan) for x in xs] for y in ys])
    # The better the lighter, whichever way is better.
    panel.imshow(grid, origin="lower", aspect="auto", cmap="viridis_r" if results.lower_is_better else "viridis")
    middle = (np.nanmax(grid) + np.nanmin(grid)) / 2
    best = next(iter(found))  # configurations begin with the best
    for (x, y), value in found.items():
        light = (value < middle) == results.lower_is_better
        weight, colour = "bold" if (x, y) == best else "normal", "black" if light else "white"
        panel.text(xs.index(x), ys.index(y), f"{value:.3g}", ha="center", va="center", color=colour, weight=weight)
    panel.set_xticks(range(len(xs)), map(_wrapped, xs))
    panel.set_yticks(range(len(ys)), map(_wrapped, ys))
    panel.set_xlabel(results.varied[keys[0]])
    panel.set_ylabel(results.varied[keys[1]])
    panel.grid(False)
    panel.set_title(f"validation {results.plan.metric}, the best in bold", loc="left")


def _ranking(panel: Any, results: SweepResults) -> None:
    """The best on top; grey are those that the data do tell from it."""
    ranked = results.configurations[:MAX_RANKED]
    alike = {id(one) for one in [ranked[0], *results.indistinguishable]}
    for place, one in enumerate(ranked):
        colour = COLOURS[0] if id(one) in alike else GREY
        errors = interval_errors([one.estimate])
        panel.errorbar([one.estimate.value], [place], xerr=errors, fmt="o", color=colour, capsize=2, ms=5)
    panel.set_yticks(range(len(ranked)), [_wrapped(results.label(one)) for one in ranked], size=8)
    panel.invert_yaxis()
    values = [one.estimate.value for one in ranked]
    if min(values) > 0 and max(values) > LOG_FROM * min(values):
        panel.set_xscale("log")
    panel.grid(axis="x")
    panel.set_xlabel(f"validation {results.plan.metric}, 95 % interval; grey: told from the best")
    num = len(results.configurations)
    panel.set_title(f"the best {MAX_RANKED} of {num}" if num > MAX_RANKED else "ranked", loc="left")


def _overlay(panel: Any, results: SweepResults, curves: Sequence[Sequence[Curve]]) -> None:
    """The winner in colour; the others grey, the better the darker."""
    num = len(results.configurations)
    for rank, one in reversed(list(enumerate(results.configurations))):
        colour = COLOURS[0] if rank == 0 else str(0.45 + 0.4 * rank / num)
        for number, curve in enumerate(curves[rank]):
            name = _wrapped(results.label(one), 2 * LABEL_CHARS) if number == 0 and rank < NUM_NAMED else None
            epochs, losses = [row["epoch"] for row in curve], [_token_loss(row) for row in curve]
            panel.plot(epochs, losses, color=colour, marker="o", ms=3, lw=2 if rank == 0 else 1, label=name)
    panel.set_xlim(left=0)
    panel.set_xlabel("epoch")
    panel.set_ylabel("evaluation loss (nats a token)")
    panel.set_title(f"in training, on all evaluation rows{'; the best named' if num > NUM_NAMED else ''}", loc="left")
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)


def _token_loss(row: Mapping[str, float]) -> float:
    """Of a loss with several parts that over tokens: kinds and weights of the others may be what the sweep varies."""
    return row.get("eval_token", row["eval_loss"])


def _wrapped(label: str, num_chars: int = LABEL_CHARS) -> str:
    return textwrap.fill(re.sub(r",\s*", ", ", label), num_chars)


def _curves(one: Configuration) -> list[Curve]:
    return [
        read_curve(path.read_text(encoding="utf-8"))
        for job in one.jobs
        for path in sorted(job.folder.glob("reports/**/curve.csv"))
    ]
