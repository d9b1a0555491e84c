"""Figures and training curves before and after: PNG files beside the Markdown, or links to them where git is served.

A figure that differs is shown twice, side by side. Of a curve.csv that differs one figure is drawn, with both runs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.core.atomic import new_folder, write_bytes
from stages.core.errors import DataError
from stages.serving.review.revisions import Revisions

CURVE = "curve.csv"
COLUMNS = ("train_loss", "eval_loss")


@dataclass(frozen=True)
class Plot:
    """A changed figure of reports/. Each picture is a link that the page can show; None where there was no figure."""

    name: str
    before: str | None
    after: str | None


Pictures = Callable[[Revisions, Sequence[str]], list[Plot]]


def plot_paths(paths: Sequence[str]) -> list[str]:
    """Those of the changed paths that are figures or curves."""
    return [path for path in paths if path.startswith("reports/") and path.endswith((".png", f"/{CURVE}"))]


def beside(folder: Path) -> Pictures:
    """Pictures written to `folder`, linked relative to the folder's parent."""

    def write(revisions: Revisions, paths: Sequence[str]) -> list[Plot]:
        with new_folder(folder) as new:
            plots = [_write(new, folder.name, revisions, path) for path in paths]
        return [plot for plot in plots if plot is not None]

    return write


def linked(template: str) -> Pictures:
    """Links to both revisions on a server, from a template with {revision} and {path}; curves are not drawn there."""
    if "{revision}" not in template or "{path}" not in template:
        raise DataError(f"{template}: a link to figures holds {{revision}} and {{path}}")

    def link(revisions: Revisions, paths: Sequence[str]) -> list[Plot]:
        def url(path: str, revision: str, exists: bool) -> str | None:
            return template.replace("{revision}", revision).replace("{path}", path) if exists else None

        return [
            Plot(
                _name(path),
                url(path, revisions.base.commit, revisions.before(path) is not None),
                url(path, revisions.head, revisions.after(path) is not None),
            )
            for path in paths
            if path.endswith(".png")
        ]

    return link


def _name(path: str) -> str:
    return str(PurePosixPath(path).relative_to("reports").with_suffix("")).replace("/figures/", "/")


def _write(folder: Path, link: str, revisions: Revisions, path: str) -> Plot | None:
    """None for a curve that differs in its speed alone."""
    name = _name(path)
    stem = name.replace("/", "-")
    before, after = revisions.before(path), revisions.after(path)
    if path.endswith(CURVE):
        if all(_points(before, column) == _points(after, column) for column in COLUMNS):
            return None
        draw_curves(folder / f"{stem}.png", name, before, after)
        return Plot(name, None, f"{link}/{stem}.png")
    links = []
    for side, data in (("before", before), ("after", after)):
        if data is not None:
            write_bytes(folder / f"{stem}-{side}.png", data)
        links.append(f"{link}/{stem}-{side}.png" if data is not None else None)
    return Plot(name, *links)


def draw_curves(picture: Path, title: str, before: bytes | None, after: bytes | None) -> None:
    """Training and evaluation loss over steps: before grey and dashed, after coloured."""
    from stages.evaluation.figures import COLOURS, new_figure, save_figure

    figure, panels = new_figure(width=9.0, num_panels=len(COLUMNS))
    for panel, column in zip(panels, COLUMNS, strict=True):
        for label, data, style in (
            ("before", before, {"color": "#888888", "linestyle": "--"}),
            ("after", after, {"color": COLOURS[0]}),
        ):
            points = _points(data, column)
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", ms=3, label=label, **style)
        panel.set_title(f"{title}: {column.replace('_', ' ')}", loc="left", fontsize=9)
        panel.set_xlabel("optimizer step")
        if panel.lines:
            panel.legend()
    save_figure(figure, picture)


def _points(data: bytes | None, column: str) -> list[tuple[float, float]]:
    """(step, value) of the rows that have both; a curve of another shape has none."""
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO((data or b"").decode("utf-8", "replace"))))
    try:
        return [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]
    except (KeyError, ValueError):
        return []
