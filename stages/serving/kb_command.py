"""`groundtune kb`: look into the knowledge base of a domain, search it, correct it, add to it, take it elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.workspace import Workspace
from stages.serving.options import AsJson, DomainName, Params

if TYPE_CHECKING:
    from stages.core.schema import Domain
    from stages.knowledge.kb_curation import Curation

State = StrEnum("State", ["read", "edited", "rejected"])
Mode = StrEnum("Mode", ["fulltext", "vector", "fused"])
Format = StrEnum("Format", ["jsonl", "csv", "markdown"])

OfDocument = Annotated[str, typer.Option("--document", help="Only documents whose name begins so.")]
OfKind = Annotated[str, typer.Option("--kind", help="Only chunks of this kind: book, article or interview.")]
TextFile = Annotated[
    Path | None, typer.Option(help="A file with the new text.", show_default=False, exists=True, dir_okay=False)
]
EDITS = "edits.jsonl"


def knowledge_app(params: Params, workspace: Workspace) -> typer.Typer:
    """The group of commands. params: from a domain's name ("": the configured one) to params.yaml as it is for it."""
    app = typer.Typer(no_args_is_help=True, help="The knowledge base: list, show, search, edit, add, export.")
    knowledge = Knowledge(params, workspace)
    app.command("list")(knowledge.list_documents)
    for command in (knowledge.show, knowledge.search, knowledge.edit, knowledge.add, knowledge.export):
        app.command()(command)
    return app


class Knowledge:
    """The commands, which share what they work on."""

    def __init__(self, params: Params, workspace: Workspace) -> None:
        self._params, self._workspace = params, workspace

    def list_documents(
        self,
        prefix: Annotated[str, typer.Argument(help="Only documents whose name begins so.")] = "",
        state: Annotated[State | None, typer.Option(help="Only documents in this state.", show_default=False)] = None,
        domain: DomainName = "",
        as_json: AsJson = False,
    ) -> None:
        """List the documents: how many chunks each has, what was edited, and why one was rejected."""
        from stages.serving.kb_display import show_documents

        with self._curation(domain) as curation:
            documents = [row for row in curation.documents(prefix) if state is None or row.state == state]
            show_documents(documents, curation, as_json)

    def show(
        self,
        name: Annotated[str, typer.Argument(help="A document's name, or a chunk's id.", show_default=False)],
        around: Annotated[int, typer.Option(help="So many neighbours of a chunk on either side.", min=0)] = 1,
        domain: DomainName = "",
        as_json: AsJson = False,
    ) -> None:
        """Show a document and where its chunks begin, or a chunk with its neighbours and its edits."""
        from stages.serving.kb_display import show_chunk, show_document

        with self._curation(domain) as curation:
            if documents := [row for row in curation.documents(name) if row.document.name == name]:
                show_document(documents, curation.chunks_of(name), as_json)
            else:
                state = curation.chunk(name)
                show_chunk(state, curation.siblings(state.chunk, around), as_json)

    def search(
        self,
        query: Annotated[str, typer.Argument(help="Any words.", show_default=False)],
        mode: Annotated[Mode, typer.Option(help="By words, by meaning, or both rankings fused.")] = Mode.fulltext,
        top_k: Annotated[int, typer.Option("--top-k", "-k", help="At most so many hits.", min=1)] = 10,
        document: OfDocument = "",
        kind: OfKind = "",
        domain: DomainName = "",
        as_json: AsJson = False,
    ) -> None:
        """Search the chunks; the words that matched are marked. Edits are found once they are in force."""
        from stages.core.config import parse_section
        from stages.core.schema import Embedder
        from stages.knowledge.kb_fulltext import Filter
        from stages.retrieval.kb_search import KnowledgeSearch
        from stages.retrieval.kb_vectors import CACHE
        from stages.serving.kb_display import show_hits

        params = self._params(domain)
        embedder = parse_section(Embedder, params["embedder"], "embedder")
        with KnowledgeSearch(self._knowledge(params), embedder, self._workspace.cache(CACHE)) as searcher:
            show_hits(searcher.find(query, top_k, mode.value, Filter(document, kind)), as_json)

    def edit(
        self,
        chunk: Annotated[str, typer.Argument(help="The chunk's id.", show_default=False)],
        text: Annotated[str | None, typer.Option(help="The new text.", show_default=False)] = None,
        file: TextFile = None,
        undo: Annotated[bool, typer.Option("--undo", help="Give the original text back.")] = False,
        note: Annotated[str, typer.Option(help="Why; it is kept with the edit.", show_default=False)] = "",
        domain: DomainName = "",
    ) -> None:
        """Correct a chunk's text: with --text, --file, or in $EDITOR. The document itself stays as it is."""
        from stages.serving.kb_display import say, show_difference

        if (text is not None) + (file is not None) + undo > 1:
            raise typer.BadParameter("give one of --text, --file and --undo")
        with self._curation(domain) as curation:
            before = curation.chunk(chunk).text
            new = "" if undo else _new_text(before, text, file)
            at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            edit = curation.undo(chunk, at, note) if undo else curation.edit(chunk, new, at, note)
        show_difference(before, edit.text)
        say(f"kept in {curation.edits}; `dvc repro` brings it into force, and reruns what depends on it", err=True)

    def add(
        self,
        files: Annotated[list[Path], typer.Argument(help="Documents.", show_default=False)],
        to: Annotated[str, typer.Option(help="A folder of domain.texts, or one below it.", show_default=False)] = "",
        replace: Annotated[bool, typer.Option("--replace", help="Over documents of the same name.")] = False,
        domain: DomainName = "",
    ) -> None:
        """Copy documents to where the domain's raw material lies."""
        from stages.serving.kb_display import say
        from stages.serving.kb_files import add_files, documents_folder

        folder = documents_folder(_domain(self._params(domain)), self._workspace, to)
        for path, copied in add_files(files, folder, replace):
            say(f"{'added' if copied else 'there already'}: {path}", err=True)
        say("`dvc repro` reads what is new", err=True)

    def export(
        self,
        out: Annotated[Path | None, typer.Option(help="The file to write; else standard output.")] = None,
        format_: Annotated[Format, typer.Option("--format", help="How chunks are written.")] = Format.jsonl,
        document: OfDocument = "",
        kind: OfKind = "",
        domain: DomainName = "",
    ) -> None:
        """Write the chunks, edits applied, as JSON lines, CSV or Markdown."""
        from stages.core.atomic import write_text
        from stages.knowledge.kb_fulltext import Filter
        from stages.serving.kb_files import EXPORTS
        from stages.serving.terminal import printable

        with self._curation(domain) as curation:
            pieces = EXPORTS[format_.value](curation.all_chunks(Filter(document, kind)))
            if out is not None:
                write_text(out, "".join(pieces))
                return
            at_terminal = sys.stdout.isatty()
            for piece in pieces:
                typer.echo(printable(piece) if at_terminal else piece, nl=False, color=True)  # color: bytes as they are

    @contextmanager
    def _curation(self, domain: str) -> Iterator[Curation]:
        from stages.knowledge.kb_curation import open_curation

        params = self._params(domain)
        edits = self._workspace.inputs / _domain(params).curation_dir / EDITS
        with open_curation(self._knowledge(params), edits) as curation:
            yield curation

    def _knowledge(self, params: Mapping[str, Any]) -> Path:
        return self._workspace.read(f"data/{_domain(params).name}/knowledge.sqlite")


def _domain(params: Mapping[str, Any]) -> Domain:
    from stages.core.config import parse_section
    from stages.core.schema import Domain

    return parse_section(Domain, params["domain"], "domain")


def _new_text(before: str, text: str | None, file: Path | None) -> str:
    if text is not None:
        return text
    if file is not None:
        from stages.core.record_files import read_text

        return read_text(file)
    import click

    return click.edit(before, extension=".txt") or before  # None: the editor was left without saving
