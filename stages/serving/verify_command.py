"""`groundtune verify`: every hash of models and outputs, computed anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from stages.core.workspace import Workspace

AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]


def verify_command(workspace: Workspace) -> Callable[..., None]:
    """The command."""

    def verify(as_json: AsJson = False) -> None:
        """Check models, adapters and outputs against their manifests, notes and dvc.lock; exit code 1 if wrong."""
        from stages.serving.verifying import check
        from stages.serving.verifying import verify as check_all

        findings = check_all(workspace)
        if as_json:
            typer.echo(json.dumps(asdict(findings), ensure_ascii=False, indent=2))
        else:
            for what in sorted(findings.checked | findings.absent):
                absent = f", {findings.absent[what]} not here" if what in findings.absent else ""
                typer.echo(f"{what}: {findings.checked.get(what, 0)} checked{absent}")
        check(findings)

    return verify
