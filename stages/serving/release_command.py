"""`groundtune release`: registers versions of exported models, and lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from stages.core.errors import ConfigError
from stages.core.workspace import Workspace

HEADLINE = "exact_match"  # where a card has it, else its first figure

if TYPE_CHECKING:
    from stages.serving.releases import Release

Export = Annotated[
    str,
    typer.Argument(
        help="Name (demo-rag), variant (rag) or folder (models/export/demo/rag) of an export.", show_default=False
    ),
]
Bump = Annotated[str, typer.Option(help="major: a new base; minor: better data or settings; patch: the rest.")]
Message = Annotated[str, typer.Option("--message", "-m", help="What is new, in a line for the tag.")]
List = Annotated[bool, typer.Option("--list", help="Show what is registered, of EXPORT or of all.")]


def release_command(domain: Callable[[], str], workspace: Workspace) -> Callable[..., None]:
    """The command. domain: names the configured one."""

    def release(export: Export = "", bump: Bump = "minor", message: Message = "", show: List = False) -> None:
        """Register a version of an exported model as a Git tag; v1.0.0 is the first.

        \b
        groundtune release rag --bump minor -m "More training pairs"
        groundtune release --list
        groundtune compare tuned tuned@v1.0.0
        """
        if show:
            _list(workspace, export, domain())
            return
        if not export:
            raise typer.BadParameter("name an export, or give --list", param_hint="EXPORT")
        from stages.serving.releasing import register

        registered = register(export, workspace, domain(), bump, message)
        typer.echo(registered.message)
        path = registered.exported[1].path
        typer.echo(
            f"\nregistered as the tag {registered.spec} on {registered.revision[:7]}; to publish it:\n"
            f"  dvc push {path}\n  git push {_remote(workspace)} HEAD {registered.spec}"
        )

    return release


def _remote(workspace: Workspace) -> str:
    from stages.core.git import git

    return next(iter(git(workspace.inputs, "remote").split()), "origin")


def _list(workspace: Workspace, export: str, domain: str) -> None:
    from stages.serving.releases import releases

    found = releases(workspace.inputs)
    if export:
        found = [release for release in found if release.name in (export, f"{domain}-{export}")]
    if not found:
        raise ConfigError(f"no version of {export or 'any export'} is registered; `groundtune release EXPORT` does it")
    _table(found)


def _table(found: list[Release]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stages.serving.terminal import printable

    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("version", "date", "revision", "headline", "what is new"):
        table.add_column(header, overflow="fold")
    for release in found:
        cells = [release.spec, f"{release.created:%Y-%m-%d}", release.revision[:7], *_headline(release)]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(highlight=False).print(table)


def _headline(release: Release) -> tuple[str, str]:
    """The first figure of its card, and the author's words."""
    from stages.serving.release_changes import SPLIT, figures

    found = figures(release.root, release.revision, release.settings.get("card") or {})
    shown = sorted((label for label in found if label != SPLIT), key=lambda label: not label.endswith(HEADLINE))
    return f"{shown[0]} {found[shown[0]]}" if shown else "not measured", release.summary
