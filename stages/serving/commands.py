"""`groundtune chat` and `groundtune ask`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stages.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from stages.serving.answering import Answerer

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="tuned: book and RAG LoRA; book: without the LoRA; base: as it came; a style adapter; or tuned@v1.0.0, a "
        "registered version.",
    ),
]
NoLora = Annotated[bool, typer.Option("--no-lora", help="The baseline: the same as --model book.")]
NoDocs = Annotated[bool, typer.Option("--no-docs", help="Answer without looking up documents.")]
ShowDocs = Annotated[bool, typer.Option("--show-docs", help="Show the documents in full after each answer.")]


def chat(
    model: ModelOption = "", no_lora: NoLora = False, no_docs: NoDocs = False, show_docs: ShowDocs = False
) -> None:
    """Talk to the model of the configured domain. Questions may also be piped in, one a line."""
    from rich.console import Console

    from stages.serving.terminal import Chat, piped_lines, typed_lines

    chosen = _chosen(model, no_lora)
    console = Console(highlight=False)
    interactive = sys.stdin.isatty()
    answerer = _load(chosen, not no_docs)
    if interactive:
        _greet(console, answerer, chosen, not no_docs)
    conversation = Chat(answerer, console, chosen, not no_docs, show_docs, interactive)
    conversation.run(typed_lines() if interactive else piped_lines())
    if conversation.num_errors and not interactive:
        raise typer.Exit(1)


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: ModelOption = "",
    no_lora: NoLora = False,
    no_docs: NoDocs = False,
    show_docs: ShowDocs = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: answer, documents, counts.")] = False,
) -> None:
    """Answer one question, with its sources."""
    from rich.console import Console
    from rich.text import Text

    from stages.serving.terminal import dropped, printable, show_documents, show_sources

    chosen = _chosen(model, no_lora)
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace") if question == "-" else question
    if not text.strip():
        raise DataError("the question is empty")
    answer = _load(chosen, not no_docs).answer(text, chosen, not no_docs)
    for note in dropped(answer.request):
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(answer.to_row(), ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    console.print(Text(printable(answer.text)), soft_wrap=True)
    (show_documents if show_docs else show_sources)(console, answer.request.documents)


def _chosen(model: str, no_lora: bool) -> str:
    if no_lora and model == "tuned":
        raise typer.BadParameter("--no-lora contradicts --model tuned")
    return model or ("book" if no_lora else "tuned")


def _load(model: str, use_documents: bool) -> Answerer:
    from rich.console import Console

    from stages.core.config import parse_section
    from stages.core.stage import load_section
    from stages.core.workspace import Workspace
    from stages.serving.answering import Answerer, Config

    answerer = Answerer(parse_section(Config, load_section("chat"), "chat"), Workspace())
    with Console(stderr=True).status("loading model and index"):
        answerer.load(model, use_documents)
    return answerer


def _greet(console: Console, answerer: Answerer, model: str, use_documents: bool) -> None:
    config = answerer.config
    records = f"{answerer.finder.num_records:,} records" if use_documents else "no documents"
    console.print(f"[bold]{config.domain}[/bold]: {model} on {config.model.name}, {records}. /help lists the commands.")
