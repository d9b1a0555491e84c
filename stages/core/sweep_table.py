"""The results of a Hydra multirun as a table: reports/sweeps/<stage>/<sweep>.{csv,md}.

A Hydra callback (https://hydra.cc/docs/experimental/callbacks/). The table is rewritten as each job ends, so that a
sweep that is still running, or was killed, can be read. A job that failed is a row with its reason.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from stages.core.atomic import write_text
from stages.core.workspace import ROOT

STATUS_FILE = "status.json"
SIGNIFICANT_DIGITS = 5


class SweepTable(Callback):  # type: ignore[misc]  # hydra ships without types for it
    """Notes each job's end and rewrites the table of its sweep."""

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        output = Path(config.hydra.runtime.output_dir)
        if not str(config.hydra.mode).endswith("MULTIRUN"):
            return
        status = {"status": job_return.status.name.lower(), "reason": _reason(job_return)}
        write_text(output / STATUS_FILE, json.dumps(status))
        write_sweep_table(output.parent, config.hydra.job.name, ROOT / "reports" / "sweeps")


def _reason(job_return: Any) -> str:
    error = getattr(job_return, "_return_value", None)
    return str(error).splitlines()[0] if isinstance(error, BaseException) and str(error) else ""


def write_sweep_table(sweep: Path, stage: str, reports: Path) -> list[dict[str, Any]]:
    """Writes the table of the jobs below the folder `sweep`, and returns its rows."""
    jobs = sorted(
        (path.parent.parent for path in sweep.glob("*/.hydra/overrides.yaml")), key=lambda p: (len(p.name), p.name)
    )
    rows = [_row(job) for job in jobs]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_text(reports / stage / f"{sweep.name}.csv", _csv(rows, columns))
    write_text(reports / stage / f"{sweep.name}.md", markdown_table(rows, columns))
    return rows


def _row(job: Path) -> dict[str, Any]:
    overrides = [str(item) for item in OmegaConf.load(job / ".hydra" / "overrides.yaml")]
    row: dict[str, Any] = {"job": job.name, **dict(item.split("=", 1) for item in overrides)}
    try:
        row |= json.loads((job / STATUS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        row |= {"status": "unfinished", "reason": ""}
    for metrics in sorted(job.glob("reports/**/metrics.json")):
        row |= dict(_numbers(json.loads(metrics.read_text(encoding="utf-8"))))
    return row


def _numbers(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield f"{prefix}{key}", item


def _csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def markdown_table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """A GitHub table; floats with five significant digits, missing cells empty."""

    def cell(value: Any) -> str:
        text = f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"
