"""Documents and ready chunks -> the knowledge base: every chunk with its document, headings, page and place.

    medical/heart.pdf, book.epub, notes.md, ... or a folder of them
    book.jsonl, ready chunks:  {"chapter": "Chapter 3", "text": "...", "questions": ["Who founded Bako?"]}
    book.jsonl, long chapters: {"title": "CHAPTER I", "text": "<2,000 words>"}
 -> {"id": "article-5f2c0a91d7b3-0031", "kind": "article", "document": "medical/heart.pdf", "section": "Heart > Valves",
     "number": 31, "text": "...", "page": 12, "begin": 40117, "end": 42006, ...}

A source with `fields` is a file of records: one with questions, or of at most chunk_tokens, is a ready chunk; a longer
one is cut, and its offsets are into the record's text. Any other source is a document, or a folder of them. Reads
domain.texts below raw_dir, and curation_dir/edits.jsonl. Writes data/<domain>/knowledge.sqlite,
data/<domain>/ingest/rejected.jsonl and reports/<domain>/ingest/metrics.json.

    python -m stages.ingest
    python -m stages.ingest ingest.chunk_tokens=300
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import fingerprint, sha256_file, sha256_files
from stages.core.ledger import Ledger
from stages.core.schema import Model, Source, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.documents.blocks import Document
from stages.documents.document_cache import DocumentCache, reader_version
from stages.documents.folder import Found, file_at, files_of
from stages.documents.limits import Limits
from stages.documents.read_text import plain_document
from stages.documents.reading import Reading, read_files
from stages.documents.rewriting import Note
from stages.generation.token_starts import LazyTokenStarts, tokenizer_hashes
from stages.knowledge import chunking, injection, knowledge_base, raw_files, sentences, token_places
from stages.knowledge.chunk_counts import ChunkCounts, edit_counts, page_counts
from stages.knowledge.chunking import ChunkSize, Piece, cut
from stages.knowledge.document_chunks import Counted, document_chunks, marked, record_chunks
from stages.knowledge.kb_edits import Edit, read_edits
from stages.knowledge.knowledge_base import DocumentRow, write_knowledge
from stages.knowledge.records import CHUNK_KINDS
from stages.knowledge.text_records import TextRecord

RECORD_FILES = (".jsonl", ".ndjson", ".json")  # a CSV holds records where `fields` says what is in it
NOT_MEANT = ("hidden", "unsupported")  # what lies among documents without being one does not make a folder bad


@dataclass
class Config:
    """Mirrors conf/ingest."""

    domain: str = MISSING
    raw_dir: str = MISSING
    curation_dir: str = MISSING
    sources: list[Source] = field(default_factory=list)
    model: Model = MISSING
    chunk_tokens: int = MISSING
    overlap_tokens: int = MISSING
    num_workers: int = MISSING
    max_rejected_share: float = MISSING
    max_rejected_documents_share: float = MISSING
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for source in self.sources:
            one_of(source.kind, CHUNK_KINDS, f"domain.texts ({source.path}): kind")
        if self.num_workers < 1:
            raise ValueError("num_workers must be at least 1")
        ChunkSize(self.chunk_tokens, self.overlap_tokens)


@dataclass
class Part:
    """What one source holds: documents, which are found first and read together, or the chunks of records."""

    source: Source
    files: list[Found] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    rows: list[DocumentRow] = field(default_factory=list)
    chunks: list[Counted] = field(default_factory=list)


def run(config: Config, workspace: Workspace) -> None:
    """Reads every source, cuts what is long, numbers the chunks of each document, and applies what people edited."""
    if not config.sources:
        raise ConfigError("domain.texts: no documents at all; name at least one book, article or interview")
    records, documents = Ledger("ingest: records"), Ledger("ingest: documents")
    cutter = Cutter(config, workspace)
    edits = read_edits(workspace.inputs / config.curation_dir / "edits.jsonl")
    with DocumentCache(workspace.cache("documents"), cutter.settings) as cache:
        parts = _read_sources(config, workspace, cutter, records)
        _read_documents(parts, config, cutter, cache, documents)
        for ledger, setting in ((records, "max_rejected_share"), (documents, "max_rejected_documents_share")):
            if ledger.num_read:
                ledger.check(ledger.num_kept, getattr(config, setting), NOT_MEANT, setting)
        told = _write(config, workspace, cutter, parts, cache, edits)
    ledger = Ledger("ingest", records.num_read + documents.num_read, records.rejections + documents.rejections)
    ledger.write(workspace.write(f"data/{config.domain}/ingest/rejected.jsonl"))
    write_json(workspace.write(f"reports/{config.domain}/ingest/metrics.json"), ledger.metrics() | told)


def _write(
    config: Config, workspace: Workspace, cutter: Cutter, parts: list[Part], cache: DocumentCache, edits: list[Edit]
) -> dict[str, Any]:
    """Writes the knowledge base and returns its metrics; left alone where all that it is made from is the same."""
    rows = [row for part in parts for row in part.rows]
    knowledge = workspace.write(f"data/{config.domain}/knowledge.sqlite")
    chunks = [counted.chunk for part in parts for counted in part.chunks]
    code = sha256_files(Path(knowledge_base.__file__).parent, "*.py") | reader_version()
    inputs = fingerprint(cutter.settings, code, sqlite3.sqlite_version, *rows, *chunks, *edits)
    note = Note(workspace.cache("documents"), knowledge, inputs)
    if told := note.value():
        return dict(told)
    counts = ChunkCounts()
    applied = write_knowledge(knowledge, rows, counts.counting(_chunks(parts, cache)), edits)
    told = counts.metrics() | page_counts(rows) | edit_counts(applied)
    note.write(told)
    return told


class Cutter:
    """Cuts texts by the base model's own tokenizer, which is loaded when the first long text comes."""

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self._size = ChunkSize(config.chunk_tokens, config.overlap_tokens)
        self._token_starts = LazyTokenStarts(workspace, config.model)
        self._max_chars = config.limits.max_chars
        code = [sha256_file(Path(str(module.__file__))) for module in (chunking, injection, sentences, token_places)]
        tokenizer = tokenizer_hashes(workspace, config.model)
        # All that the pieces of a document depend on besides its file and the readers
        self.settings = [asdict(self._size), asdict(config.limits), tokenizer, code]

    def document(self, document: Document) -> tuple[dict[str, Any], list[Any]]:
        """What the cache keeps of a document: what its row says, and its chunks."""
        text = document.text
        first_heading = next((block.text for block in document.blocks if block.kind == "heading"), "")
        summary = {
            "title": document.title or first_heading,
            "format": document.format,
            "num_pages": document.num_pages,
            "num_chars": len(text),
            "failed_pages": document.failed_pages,
            "metadata": document.metadata,
        }
        pieces = cut(text, document.blocks, self._size, self._token_starts)
        return summary, marked(pieces)

    def record(self, record: TextRecord) -> list[Piece]:
        """The record as it is, if it has questions or fits; else cut."""
        whole = Piece(record.text, (), None, 0, 0)
        if record.questions or len(record.text.encode()) < self._size.chunk_tokens:
            return [whole]
        if (num_tokens := len(self._token_starts([record.text])[0])) <= self._size.chunk_tokens:
            return [replace(whole, num_tokens=num_tokens)]
        document = plain_document(record.text, self._max_chars)
        return cut(document.text, document.blocks, self._size, self._token_starts)


def _read_sources(config: Config, workspace: Workspace, cutter: Cutter, ledger: Ledger) -> list[Part]:
    """Every source in order: its records read, its documents found."""
    parts = []
    num_sources: Counter[str] = Counter()
    for source in config.sources:
        path = _existing(workspace, config.raw_dir, source)
        part = Part(source)
        if path.is_file() and (source.fields or path.suffix.lower() in RECORD_FILES):
            num_sources[source.kind] += 1
            raw_files.raw_path(workspace, config.raw_dir, source.path)  # refuses an empty file
            _add_records(part, path, _prefix(source.kind, num_sources[source.kind]), cutter, ledger)
        elif source.fields:
            raise ConfigError(f"domain.texts ({source.path}): fields are of records, and this is a folder of documents")
        else:
            part.files = _files(path, PurePosixPath(source.path))
        parts.append(part)
    return parts


def _existing(workspace: Workspace, raw_dir: str, source: Source) -> Path:
    try:
        return workspace.read(Path(raw_dir) / source.path)
    except DataError as error:
        message = f"{raw_dir}/{source.path}: no such raw file or folder; see domain.raw_dir and domain.texts"
        raise DataError(message) from error


def _files(path: Path, name: PurePosixPath) -> list[Found]:
    """The file itself, or all files of the folder, named by their path below raw_dir."""
    if not path.is_dir():
        return [file_at(path, name.as_posix())]
    return [replace(found, source=(name / found.source).as_posix()) for found in files_of(path)]


def _prefix(kind: str, number: int) -> str:
    """What the ids of a source's records begin with. Interview chunks must not be mistaken for interview Q&A."""
    name = "interview_chunk" if kind == "interview" else kind
    return name if number == 1 else f"{name}{number}"


def _add_records(part: Part, path: Path, prefix: str, cutter: Cutter, ledger: Ledger) -> None:
    part.chunks = list(record_chunks(path, part.source, prefix, ledger, cutter.record))
    num_chars: Counter[str] = Counter()
    for counted in part.chunks:
        num_chars[counted.chunk.document] += len(counted.chunk.text)
    file = (path.suffix[1:].lower(), sha256_file(path), path.stat().st_size, 0)
    part.rows = [DocumentRow(name, part.source.kind, name, *file, chars) for name, chars in num_chars.items()]


def _read_documents(parts: list[Part], config: Config, cutter: Cutter, cache: DocumentCache, ledger: Ledger) -> None:
    """Reads the documents of all sources at once, and says of each what became of it."""
    files = [found for part in parts for found in part.files]
    if twice := [name for name, count in Counter(found.source for found in files).items() if count > 1]:
        raise DataError(f"domain.texts: {twice[0]} comes from two sources, or two files have that name; leave one out")
    readings = iter(read_files(files, cache, config.limits, config.num_workers, cutter.document))
    for part in parts:
        part.readings = list(islice(readings, len(part.files)))
        part.rows += [_row(reading, part.source.kind) for reading in part.readings]
        ledger.read(len(part.readings))
        for reading in part.readings:
            if reading.reason:
                ledger.reject(reading.found.source, reading.reason, reading.detail)


def _row(reading: Reading, kind: str) -> DocumentRow:
    unread = {"title": "", "format": "", "num_pages": 0, "num_chars": 0}
    row = DocumentRow(
        name=reading.found.source,
        kind=kind,
        sha256=reading.sha256,
        num_bytes=reading.num_bytes,
        reason=reading.reason,
        detail=reading.detail,
        **(reading.summary or unread),
    )
    return row if row.title else replace(row, title=PurePosixPath(row.name).stem)


def _chunks(parts: list[Part], cache: DocumentCache) -> Iterator[Counted]:
    """All chunks in order; those of documents come from the cache one document at a time."""
    for part in parts:
        yield from part.chunks
        for reading in part.readings:
            if not reading.reason:
                pieces = cache.pieces(reading.key)
                if pieces is None:
                    raise DataError(f"{reading.found.source}: the cache of documents was damaged in use; run again")
                yield from document_chunks(reading.found.source, part.source.kind, pieces)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
