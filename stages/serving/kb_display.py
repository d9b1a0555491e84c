"""How documents, chunks and hits of the knowledge base look in a terminal, and as JSON."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from stages.knowledge.kb_curation import STATES, ChunkState, Curation, DocumentState
from stages.knowledge.kb_fulltext import Snippet
from stages.knowledge.records import Chunk
from stages.retrieval.kb_search import KnowledgeHit

LINE_CHARS = 100
SHOWN_ORPHANS = 20


def say(text: str, err: bool = False) -> None:
    """One line, or several, without the control characters that a document may hold."""
    from stages.serving.terminal import printable

    typer.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Indented, with letters as they are."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def show_documents(documents: Sequence[DocumentState], curation: Curation, as_json: bool) -> None:
    """One line for each, then the orphaned edits, then the counts."""
    counts = _counts(documents, curation)
    if as_json:
        edits = {"orphaned": _rows(curation.orphaned), "pending": _rows(curation.pending)}
        print_json({"counts": counts, "documents": [_document_row(row) for row in documents], **edits})
        return
    for row in documents:
        say(_document_line(row))
    for edit in curation.orphaned[:SHOWN_ORPHANS]:
        say(f"orphaned edit of {edit.chunk} ({edit.at}): no chunk has its text any more: {_first_line(edit.text)}")
    if len(curation.orphaned) > SHOWN_ORPHANS:
        say(f"... and {len(curation.orphaned) - SHOWN_ORPHANS} more orphaned edits; --json lists them all")
    say(", ".join(f"{count} {name.removeprefix('num_').replace('_', ' ')}" for name, count in counts.items()))


def show_document(documents: Sequence[DocumentState], chunks: Sequence[Chunk], as_json: bool) -> None:
    """What is known of a document (one name may stand for several kinds), and the beginnings of its chunks."""
    if as_json:
        print_json(
            [
                {**_document_row(row), "chunks": _rows(c for c in chunks if c.kind == row.document.kind)}
                for row in documents
            ]
        )
        return
    for row in documents:
        say(_document_line(row))
        details = {key: value for key, value in asdict(row.document).items() if value not in ("", [], {}, 0)}
        say("  " + ", ".join(f"{key} {value}" for key, value in details.items() if key not in ("name", "kind")))
    for chunk in chunks:
        say(f"{chunk.id}  {_place(chunk)}\n    {_first_line(chunk.text)}")


def show_chunk(state: ChunkState, siblings: Sequence[Chunk], as_json: bool) -> None:
    """The chunk in full between the beginnings of its neighbours, its questions, and its edits."""
    chunk = state.chunk
    if as_json:
        history = [{**asdict(outcome.edit), "state": outcome.state} for outcome in state.history]
        edits = {"original": state.original, "history": history, "pending": _rows(state.pending)}
        print_json({**chunk.to_row(), **edits, "siblings": _rows(siblings)})
        return
    say(f"{title(chunk)}\n")
    for near in sorted([*siblings, chunk], key=lambda near: near.number):
        say(f"{state.text}\n" if near == chunk else f"({near.id}) {_first_line(near.text)}\n")
    for question in chunk.questions:
        say(f"? {question}")
    for outcome in state.history:
        say(f"{outcome.edit.at}  {outcome.state}  {outcome.edit.note}".rstrip())
    for edit in state.pending:
        say(f"{edit.at}  pending  {edit.note}".rstrip())
    if state.text != state.original:
        lines = difflib.unified_diff(
            state.original.splitlines(), state.text.splitlines(), "original", "edited", lineterm=""
        )
        say("\n".join(lines))


def show_hits(hits: Sequence[KnowledgeHit], as_json: bool) -> None:
    """Where each was found, and the snippet with its words marked."""
    if as_json:
        print_json([{**hit.chunk.to_row(), "snippet": asdict(hit.snippet)} for hit in hits])
        return
    for number, hit in enumerate(hits, start=1):
        say(f"[{number}] {title(hit.chunk)}")
        typer.echo(f"    {_marked(hit.snippet)}")
    if not hits:
        say("nothing found", err=True)


def show_difference(before: str, after: str) -> None:
    """As `diff -u` shows it."""
    say("\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")))


def title(chunk: Chunk) -> str:
    """Id, document and the place in it, in one line."""
    return f"{chunk.id}  {chunk.document}  {_place(chunk)}".rstrip()


def _place(chunk: Chunk) -> str:
    page = f"page {chunk.page}" if chunk.page is not None else ""
    return ", ".join(part for part in (chunk.section, page) if part)


def _marked(snippet: Snippet) -> str:
    """Bold on a terminal; typer leaves the codes out where the output is none."""
    from stages.serving.terminal import printable

    pieces, end = [], 0
    for begin, stop in snippet.marks:
        pieces += [printable(snippet.text[end:begin]), typer.style(printable(snippet.text[begin:stop]), bold=True)]
        end = stop
    return "".join([*pieces, printable(snippet.text[end:])])


def _first_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARS else line[: LINE_CHARS - 2] + " …"


def _document_line(row: DocumentState) -> str:
    document = row.document
    notes = [f"{row.num_edited} edited"] * bool(row.num_edited) + [f"{row.num_pending} pending"] * bool(row.num_pending)
    if document.failed_pages:
        notes.append(f"{len(document.failed_pages)} pages not read")
    if document.reason:
        notes.append(f"{document.reason}: {document.detail}" if document.detail else document.reason)
    return f"{row.state:<8}  {document.kind:<9}  {row.num_chunks:>6}  {document.name}  {', '.join(notes)}".rstrip()


def _document_row(row: DocumentState) -> dict[str, Any]:
    counts = {"num_chunks": row.num_chunks, "num_edited": row.num_edited, "num_pending": row.num_pending}
    return {"state": row.state, **asdict(row.document), **counts}


def _counts(documents: Sequence[DocumentState], curation: Curation) -> dict[str, int]:
    states = Counter(row.state for row in documents)
    return {
        "num_documents": len(documents),
        **{f"num_{state}": states[state] for state in STATES},
        "num_chunks": sum(row.num_chunks for row in documents),
        "num_edited_chunks": sum(row.num_edited for row in documents),
        "num_pending_edits": len(curation.pending),
        "num_orphaned_edits": len(curation.orphaned),
    }


def _rows(records: Any) -> list[dict[str, Any]]:
    return [asdict(record) for record in records]
