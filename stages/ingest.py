"""Documents -> chunks of connected text, numbered through each document.

    book.jsonl, ready chunks:  {"chapter": "Chapter 3", "text": "...", "questions": ["Who founded Bako?"]}
    book.jsonl, long chapters: {"title": "CHAPTER I", "text": "<2,000 words>"}
    book.txt, plain text with headings
 -> {"id": "book-0031", "kind": "book", "document": "book", "section": "Chapter 3", "number": 31, "text": "...", ...}

A record with questions, or of at most `chunk_words` words, is a ready chunk; a longer one is cut.
Reads the domain's text sources below raw_dir. Writes data/<domain>/chunks/chunks.jsonl,
data/<domain>/chunks/rejected.jsonl and reports/<domain>/ingest/metrics.json.

    python -m stages.ingest
    python -m stages.ingest ingest.chunk_words=150
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import ConfigError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.schema import Source, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge import raw_files
from stages.knowledge.chunking import cut, cut_paragraphs, sections
from stages.knowledge.cleaning import normalise
from stages.knowledge.records import CHUNK_KINDS, Chunk

NEEDED = ("text",)
OPTIONAL = ("document", "section", "questions")
PLAIN_TEXT = (".txt", ".text")


@dataclass
class Config:
    """Mirrors conf/ingest."""

    domain: str = MISSING
    raw_dir: str = MISSING
    sources: list[Source] = field(default_factory=list)
    chunk_words: int = MISSING
    max_rejected_share: float = MISSING

    def __post_init__(self) -> None:
        for source in self.sources:
            one_of(source.kind, CHUNK_KINDS, f"domain.texts ({source.path}): kind")
        if self.chunk_words < 1:
            raise ValueError("chunk_words must be at least 1")


def run(config: Config, workspace: Workspace) -> None:
    """Reads every source, cuts what is long, numbers the chunks of each document."""
    if not config.sources:
        raise ConfigError("domain.texts: no documents at all; name at least one book, article or interview file")
    ledger = Ledger("ingest")
    chunks = _number(
        chunk
        for prefix, source in _with_prefixes(config)
        for chunk in _chunks(config, workspace, source, prefix, ledger)
    )
    ledger.check(ledger.num_kept if chunks else 0, config.max_rejected_share)
    write_jsonl(workspace.write(f"data/{config.domain}/chunks/chunks.jsonl"), (chunk.to_row() for chunk in chunks))
    ledger.write(workspace.write(f"data/{config.domain}/chunks/rejected.jsonl"))
    write_json(workspace.write(f"reports/{config.domain}/ingest/metrics.json"), _metrics(chunks, ledger))


def _with_prefixes(config: Config) -> Iterator[tuple[str, Source]]:
    """Each source with the start of its ids. Interview chunks must not be mistaken for interview Q&A."""
    seen: Counter[str] = Counter()
    for source in config.sources:
        seen[source.kind] += 1
        name = "interview_chunk" if source.kind == "interview" else source.kind
        yield name if seen[source.kind] == 1 else f"{name}{seen[source.kind]}", source


def _chunks(config: Config, workspace: Workspace, source: Source, prefix: str, ledger: Ledger) -> Iterator[Chunk]:
    """The source's chunks, `number` still counting through the source. A broken record uses up a number: fixing it
    renames nothing."""
    path = raw_files.raw_path(workspace, config.raw_dir, source.path)
    if path.suffix.lower() in PLAIN_TEXT:
        pieces = _plain_text(path, config.chunk_words, ledger)
    else:
        raw_files.check_fields(source, NEEDED, OPTIONAL, "domain.texts")
        pieces = _records(path, source, config.chunk_words, ledger)
    for number, piece in enumerate(pieces, start=1):
        if piece is not None:
            yield replace(piece, id=f"{prefix}-{number:04d}", kind=source.kind)


def _plain_text(path: Path, chunk_words: int, ledger: Ledger) -> Iterator[Chunk | None]:
    ledger.read()
    found = sections(raw_files.read_text(path))
    if not found:
        ledger.reject(path.name, "empty_text")
    for section in found:
        for text in cut_paragraphs(section.paragraphs, chunk_words):
            yield Chunk("", "", path.stem, section.heading, 0, text, origin=path.name)


def _records(path: Path, source: Source, chunk_words: int, ledger: Ledger) -> Iterator[Chunk | None]:
    for item in raw_files.iterate_items(path):
        ledger.read()
        try:
            pieces = _record(path, source, item, chunk_words)
        except raw_files.WrongTypeError as error:
            ledger.reject(item.origin, "wrong_type", str(error))
            yield None
            continue
        if not pieces:
            ledger.reject(item.origin, "broken_record" if item.error else "empty_text", item.error)
            yield None
        yield from pieces


def _record(path: Path, source: Source, item: raw_files.Item, chunk_words: int) -> list[Chunk]:
    text = raw_files.text_of(item.values, source, "text")
    listed = [normalise(question) for question in raw_files.list_of(item.values, source, "questions")]
    questions = [question for question in listed if question]
    ready = bool(questions) or len(text.split()) <= chunk_words
    whole = Chunk(
        id="",
        kind="",
        document=normalise(raw_files.text_of(item.values, source, "document")) or path.stem,
        section=normalise(raw_files.text_of(item.values, source, "section")),
        number=0,
        text=normalise(text),
        questions=questions,
        origin=item.origin,
    )
    if ready:
        return [whole] if whole.text else []
    return [replace(whole, text=piece) for piece in cut(text, chunk_words)]


def _number(chunks: Iterator[Chunk]) -> list[Chunk]:
    """Numbers each document's chunks from 1."""
    counts: Counter[tuple[str, str]] = Counter()
    numbered = []
    for chunk in chunks:
        counts[chunk.kind, chunk.document] += 1
        numbered.append(replace(chunk, number=counts[chunk.kind, chunk.document]))
    return numbered


def _metrics(chunks: list[Chunk], ledger: Ledger) -> dict[str, Any]:
    words = sorted(len(chunk.text.split()) for chunk in chunks)
    return {
        **ledger.metrics(),
        "num_chunks": len(chunks),
        "num_chunks_by_kind": dict(sorted(Counter(chunk.kind for chunk in chunks).items())),
        "num_documents": len({(chunk.kind, chunk.document) for chunk in chunks}),
        "num_sections": len({(chunk.kind, chunk.document, chunk.section) for chunk in chunks}),
        "num_with_questions": sum(bool(chunk.questions) for chunk in chunks),
        "words": {"total": sum(words), "median": words[len(words) // 2], "max": words[-1]},
    }


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
