"""`groundtune compare`: the same prompts to several models, side by side, measured, and voted on without names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.errors import DataError
from stages.core.workspace import Workspace

if TYPE_CHECKING:
    from stages.serving.answering import Config
    from stages.serving.compare_measures import Measures
    from stages.serving.compare_models import ModelRun
    from stages.serving.compare_prompts import AskedPrompt, AuthorText

Params = Callable[[str], Mapping[str, Any]]

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL MODEL...",
        help="base, book, tuned, a style adapter of the domain, a version (tuned@v1.0.0), or a folder with a model or "
        "a LoRA. Gains are against the first.",
        show_default=False,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help='A prompt a line, or JSON lines {"prompt"} or {"messages"}; else those of the author\'s held-out text.',
        show_default=False,
    ),
]
Author = Annotated[str, typer.Option(help="The writer of prepare_style whose style is meant; else the only one.")]
Other = Annotated[
    list[str] | None,
    typer.Option(help="Another writer of prepare_style, or a file of plain text; else all others.", show_default=False),
]
Out = Annotated[Path | None, typer.Option(help="The folder to write to; else runs/compare/DOMAIN.", show_default=False)]
Limit = Annotated[int, typer.Option(help="At most so many prompts; 0: all.", min=0)]
MaxNew = Annotated[int, typer.Option(help="Tokens of an answer; 0: as in conf/chat.", min=0)]
Batch = Annotated[int, typer.Option(help="Prompts that are answered together.", min=1)]
DomainName = Annotated[str, typer.Option("--domain", help="By its name in conf/domain; else the configured one.")]
FILES = ("answers.jsonl", "metrics.json", "compare.md", "compare.html")


def compare_command(params: Params, workspace: Workspace) -> Callable[..., None]:
    """The command. params: from a domain's name ("": the configured one) to params.yaml as it is for it."""

    def compare(
        models: Names,
        prompts: Prompts = None,
        author: Author = "",
        other: Other = None,
        out: Out = None,
        limit: Limit = 0,
        max_new_tokens: MaxNew = 0,
        batch_size: Batch = 8,
        domain: DomainName = "",
    ) -> None:
        """Compare models on the same prompts: answers side by side, measures, and a page to vote without names.

        \b
        groundtune compare base tuned --prompts prompts.txt
        groundtune compare base verne path/to/merged --author verne --out reports/demo/compare
        """
        if len(models) < 2:
            raise typer.BadParameter("name at least two models")
        from stages.core.config import parse_section
        from stages.serving.answering import Config
        from stages.serving.compare_prompts import read_author

        values = params(domain)
        config = parse_section(Config, values["chat"], "chat")
        text = read_author(workspace, config.domain, author, other or [])
        asked = _asked(workspace, config, prompts, text, limit)
        runs = _runs(workspace, config, models, asked, text, max_new_tokens or config.max_new_tokens, batch_size)
        folder = out or workspace.outputs / "runs" / "compare" / config.domain
        _publish(folder, asked, runs, text, int(values["seed"]))

    return compare


def _asked(
    workspace: Workspace, config: Config, path: Path | None, author: AuthorText | None, limit: int
) -> list[AskedPrompt]:
    """The prompts, each with a system message; what was rejected is said on stderr."""
    from stages.core.ledger import Ledger
    from stages.serving.compare_prompts import read_prompts, spread

    if path is None and author is None:
        raise DataError(f"give --prompts FILE: {config.domain} has no author whose held-out prompts could be taken")
    if path is None and author is not None:
        path = workspace.read(f"data/{config.domain}/style/{author.name}/validation.jsonl")
    assert path is not None
    ledger = Ledger(path.name)
    prompts = read_prompts(path, ledger)
    for rejection in ledger.rejections:
        typer.echo(f"rejected {rejection['origin']}: {rejection['reason']} {rejection['detail']}".rstrip(), err=True)
    ledger.check(len(prompts))
    typer.echo(f"{ledger.num_read} prompts read, {ledger.num_kept} kept, {ledger.num_rejected} rejected", err=True)
    return [prompt.with_system(config.prompt.without_documents) for prompt in spread(prompts, limit)]


def _runs(
    workspace: Workspace,
    config: Config,
    names: Sequence[str],
    prompts: Sequence[AskedPrompt],
    author: AuthorText | None,
    max_new_tokens: int,
    batch_size: int,
) -> list[ModelRun]:
    from stages.serving.compare_models import check_names, run_model
    from stages.serving.models import Models

    models = Models(workspace, config.model, config.prompt, config.domain, config.styles)
    check_names(models, names)
    runs = []
    for name in names:
        typer.echo(f"{name}: {len(prompts)} answers", err=True)
        runs.append(run_model(models, name, prompts, author, max_new_tokens, batch_size))
    return runs


def _publish(
    folder: Path, prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], author: AuthorText | None, seed: int
) -> None:
    from rich.console import Console

    from stages.serving.compare_measures import measure
    from stages.serving.compare_show import show

    measures = measure(runs, prompts, author, seed)
    write_files(folder, prompts, runs, measures, seed)
    show(Console(), prompts, runs, measures)
    typer.echo(f"written to {folder}: {', '.join(FILES)}; open {FILES[-1]} in a browser to vote", err=True)


def write_files(
    folder: Path, prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], measures: Measures, seed: int
) -> None:
    """Writes FILES; the same comparison gives the same bytes."""
    from stages.core.atomic import write_json, write_text
    from stages.core.jsonl import write_jsonl
    from stages.serving.compare_page import page
    from stages.serving.compare_show import markdown, measures_json

    rows = [
        {
            "origin": prompt.origin,
            "messages": list(prompt.messages),
            "answers": {run.name: run.answers[number] for run in runs},
        }
        for number, prompt in enumerate(prompts)
    ]
    write_jsonl(folder / FILES[0], rows)
    write_json(folder / FILES[1], measures_json(measures))
    write_text(folder / FILES[2], markdown(prompts, runs, measures))
    write_text(folder / FILES[3], page(prompts, runs, measures, seed))
