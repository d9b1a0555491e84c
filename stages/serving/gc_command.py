"""`groundtune gc`: what could be freed on this disk, by size; freed with --yes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.core.workspace import Workspace

if TYPE_CHECKING:
    from stages.serving.disk_use import Freeable

NOTES = {
    "objects": "used by no branch, tag, experiment, nor the workspace",
    "scratch": "made again when needed; an interrupted training starts anew",
    "runs": "of trials and sweeps; tables in reports/sweeps stay",
}

Yes = Annotated[bool, typer.Option("--yes", help="Free it. Without this nothing is deleted.")]
Only = Annotated[
    list[str] | None, typer.Option(metavar="KIND", help="objects, scratch or runs; else all.", show_default=False)
]
Project = Annotated[
    list[Path] | None,
    typer.Option(help="Another clone that uses the same DVC cache: what it uses stays.", show_default=False),
]


def gc_command(workspace: Workspace) -> Callable[..., None]:
    """The command."""

    def gc(yes: Yes = False, only: Only = None, project: Project = None) -> None:
        """Say what could be freed on this disk; free it with --yes.

        What a branch, a tag, an experiment or the workspace uses is never deleted.
        """
        from stages.serving.disk_use import KINDS, free, freeable

        if unknown := sorted({*(only or [])} - {*KINDS}):
            raise typer.BadParameter(f"{unknown[0]} is not one of {', '.join(KINDS)}", param_hint="--only")
        found = freeable(workspace.outputs, only or KINDS, project or [])
        _print(found, workspace.outputs)
        if yes:
            free(workspace.outputs, found, project or [])
            typer.echo("freed")
        elif found:
            typer.echo("nothing was deleted; --yes deletes it")

    return gc


def _print(found: Sequence[Freeable], root: Path) -> None:
    for kind in dict.fromkeys(item.kind for item in found):
        typer.echo(f"{kind}: {NOTES[kind]}")
        for item in (item for item in found if item.kind == kind):
            path = item.path.relative_to(root) if item.path.is_relative_to(root) else item.path
            typer.echo(f"  {_size(item.size_bytes):>9}  {item.num_files:>6} files  {path}")
    typer.echo(f"{_size(sum(item.size_bytes for item in found)):>11}  in all" if found else "nothing to free")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"
