"""A sweep in one figure: the metric over its two numeric settings as a heat map, and all evaluation curves overlaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.evaluation.figures import COLOURS, new_figure, save_figure
from stages.evaluation.regression_publishing import read_curve

if TYPE_CHECKING:
    from stages.sweeps.results import Configuration, SweepResults

Curve = Sequence[Mapping[str, float]]


def draw(results: SweepResults, path: Path) -> bool:
    """Writes the figure; False where there is nothing to show (and an older figure goes)."""
    curves = {id(one): _curves(one) for one in results.configurations}
    keys = numeric_keys(results)
    panels = [name for name, there in (("map", len(keys) == 2), ("curves", any(curves.values()))) if curves and there]
    if not panels:
        path.unlink(missing_ok=True)
        return False
    figure, axes = new_figure(width=5.6 * len(panels) + 0.6, num_panels=len(panels))
    for panel, name in zip(axes if len(panels) > 1 else [axes], panels, strict=True):
        if name == "map":
            _heat_map(panel, results, keys)
        else:
            _overlay(panel, results, curves)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    return True


def numeric_keys(results: SweepResults) -> list[str]:
    """The settings that vary and are numbers."""
    return [
        key for key in results.varied if all(_is_number(one.settings.get(key, "")) for one in results.configurations)
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def cells(
    results: SweepResults, keys: Sequence[str]
) -> tuple[list[float], list[float], dict[tuple[float, float], float]]:
    """Values of the first key, of the second, and the metric of each pair: the best, where other settings vary too."""
    found: dict[tuple[float, float], float] = {}
    for one in results.configurations:  # the best first
        x, y = (float(one.settings[key]) for key in keys)
        found.setdefault((x, y), one.estimate.value)
    return sorted({x for x, _ in found}), sorted({y for _, y in found}), found


def _heat_map(panel: Any, results: SweepResults, keys: Sequence[str]) -> None:
    import numpy as np

    xs, ys, found = cells(results, keys)
    grid = np.array([[found.get((x, y), np.nan) for x in xs] for y in ys])
    # The better the lighter, whichever way is better.
    panel.imshow(grid, origin="lower", aspect="auto", cmap="viridis_r" if results.lower_is_better else "viridis")
    middle = (np.nanmax(grid) + np.nanmin(grid)) / 2
    best = max(found, key=lambda place: (-1 if results.lower_is_better else 1) * found[place])
    for (x, y), value in found.items():
        light = (value < middle) == results.lower_is_better
        weight = "bold" if (x, y) == best else "normal"
        colour = "black" if light else "white"
        panel.text(xs.index(x), ys.index(y), f"{value:.3g}", ha="center", va="center", color=colour, weight=weight)
    panel.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    panel.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    panel.set_xlabel(results.varied[keys[0]])
    panel.set_ylabel(results.varied[keys[1]])
    panel.grid(False)
    panel.set_title(f"validation {results.plan.metric}, the best in bold", loc="left")


def _overlay(panel: Any, results: SweepResults, curves: Mapping[int, Sequence[Curve]]) -> None:
    """The winner in colour; the others grey, the better the darker."""
    num = len(results.configurations)
    for rank, one in reversed(list(enumerate(results.configurations))):
        colour = COLOURS[0] if rank == 0 else str(0.45 + 0.4 * rank / num)
        for number, curve in enumerate(curves[id(one)]):
            name = results.label(one) if number == 0 and rank < 3 else None
            epochs, losses = [row["epoch"] for row in curve], [row["eval_loss"] for row in curve]
            panel.plot(epochs, losses, color=colour, marker="o", ms=3, lw=2 if rank == 0 else 1, label=name)
    panel.set_xlabel("epoch")
    panel.set_ylabel("evaluation loss (nats a token)")
    panel.set_title("training, the best three named", loc="left")
    panel.legend()


def _curves(one: Configuration) -> list[Curve]:
    return [
        read_curve(path.read_text(encoding="utf-8"))
        for job in one.jobs
        for path in sorted(job.folder.glob("reports/**/curve.csv"))
    ]
