"""`groundtune review`: what a branch changes, as Markdown; exit code 1 where something got worse beyond its limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core.errors import DataError
from stages.core.workspace import Workspace

BaseName = Annotated[
    str,
    typer.Argument(
        metavar="[BASE]",
        help="A branch, tag or commit. Compared is the commit where this branch left it.",
        show_default="main, or origin/main",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="The Markdown file to write; figures go into a folder of its name.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON instead.")]
Committed = Annotated[bool, typer.Option("--committed", help="Refuse where there are uncommitted changes.")]
Links = Annotated[
    str,
    typer.Option(
        help="Link figures on a server instead of copying them: a URL with {revision} and {path}.", show_default=False
    ),
]


def review_command(section: Callable[[], Mapping[str, Any]], workspace: Workspace) -> Callable[..., None]:
    """The command. section: reads the settings, `review` of params.yaml."""

    def review(
        base: BaseName = "",
        out: Out = None,
        as_json: AsJson = False,
        committed: Committed = False,
        figure_links: Links = "",
    ) -> None:
        """Write the Markdown of a pull request: what changed against BASE, and whether anything got worse.

        \b
        groundtune review                        # against main, to standard output
        groundtune review origin/main --out review.md
        groundtune review v1.0 --json

        Exit code 1: a guarded metric or a cost is worse than conf/review allows, or the review could not be made.
        """
        from stages.core.atomic import write_text
        from stages.core.config import parse_section
        from stages.serving.review.page import page
        from stages.serving.review.plots import beside, linked
        from stages.serving.review.review import collect
        from stages.serving.review.revisions import Revisions
        from stages.serving.review.settings import Config

        config = parse_section(Config, section(), "review")
        revisions = Revisions(workspace.outputs, base)
        if committed and (paths := revisions.uncommitted()):
            raise DataError(f"{len(paths)} files have uncommitted changes, {paths[0]} first: commit or stash them")
        pictures = linked(figure_links) if figure_links else beside(out.with_suffix("")) if out else None
        found = collect(revisions, config, pictures)
        text = json.dumps(found.to_json(), indent=2) + "\n" if as_json else page(found, config.max_rows)
        if out is None:
            typer.echo(text, nl=False)
        else:
            write_text(out, text)
            typer.echo(f"{out}: {_summary(len(found.regressions), len(found.too_costly))}", err=True)
        if not found.passed:
            raise typer.Exit(1)

    return review


def _summary(num_regressions: int, num_too_costly: int) -> str:
    if num_regressions or num_too_costly:
        return f"{num_regressions} metrics and {num_too_costly} costs are worse than conf/review allows"
    return "no regression"
