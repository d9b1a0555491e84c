"""Prints the doctor's report as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer

from stages.serving.doctor.check import Check

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(difference: Callable[[], list[str]], as_json: bool) -> None:
    """Prints the report; exit code 1 where the configured pipeline lacks something."""
    from stages.core.stage import read_params
    from stages.core.workspace import Workspace
    from stages.serving.doctor.diagnosis import diagnose, to_report

    checks = diagnose(read_params, difference, Workspace())
    report = to_report(checks)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        _print(checks)
    if not report["ok"]:
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), show_header=False)
    group = ""
    for check in checks:
        if check.group != group:
            table.add_row(Text(check.group, style="bold"))
            group = check.group
        found = Text(check.found, overflow="fold")  # paths and commands are to be copied whole
        if check.fix:
            found.append(f"\n-> {check.fix}", style="dim" if check.status == "ok" else STYLES[check.status])
        table.add_row(Text(f"  {check.name}"), Text(check.status, style=STYLES[check.status]), found)
    console = Console(highlight=False)
    console.print(table)
    if problems := [check.name for check in checks if check.status == "problem"]:
        console.print(Text(f"problems with: {', '.join(problems)}", style=STYLES["problem"]))
    else:
        console.print(Text("ready", style="bold green"))
