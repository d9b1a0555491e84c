"""Prints the doctor's report."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer

from stages.core.errors import ConfigError
from stages.serving.doctor.check import Params

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(as_json: bool, params_difference: Callable[[], list[str]]) -> None:
    """Exit code 1 where the configured pipeline lacks something."""
    from stages.core.workspace import Workspace
    from stages.serving.doctor.diagnosis import diagnose, to_report

    report = to_report(diagnose(read_params(), Workspace(), params_difference))
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print_report(report)
    if not report["ok"]:
        raise typer.Exit(1)
