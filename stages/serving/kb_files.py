"""Documents into a domain's folder, and chunks out of the knowledge base."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_file
from stages.core.schema import Domain
from stages.core.workspace import Workspace
from stages.knowledge.records import Chunk

COLUMNS = ("id", "kind", "document", "section", "number", "page", "begin", "end", "origin", "text")


def documents_folder(domain: Domain, workspace: Workspace, to: str = "") -> Path:
    """Where documents of this domain go: the folder source of domain.texts, or `to`, which lies in one.

    Raises ConfigError where a stage writes the raw material, or the domain has no folder of documents.
    """
    if domain.generators:
        raise ConfigError(
            f"domain {domain.name}: {domain.raw_dir} is written by `make_demo`, which would delete what is added; "
            "make a domain of your own: `groundtune new NAME --from FOLDER`"
        )
    root = workspace.inputs / domain.raw_dir
    folders = [source.path for source in domain.texts if not source.fields and _is_folder(root / source.path)]
    if not folders:
        raise ConfigError(
            f"domain {domain.name}: domain.texts names no folder of documents; "
            f"add `{{path: documents, kind: article}}` to it in conf/domain/{domain.name}.yaml"
        )
    wanted = PurePosixPath(to or folders[0])
    if wanted.is_absolute() or ".." in wanted.parts or not any(wanted.is_relative_to(folder) for folder in folders):
        raise ConfigError(f"--to {to}: not in a folder of documents of domain.texts: {', '.join(folders)}")
    return root / wanted


def add_files(files: Sequence[Path], folder: Path, replace: bool) -> Iterator[tuple[Path, bool]]:
    """Copies each file; yields (where it lies now, whether it was copied). The same bytes are not copied again.

    Raises DataError, before anything is copied, where a file is missing or its name is taken by another document.
    """
    targets = [folder / path.name for path in files]
    for path, target in zip(files, targets, strict=True):
        if not path.is_file():
            raise DataError(f"{path}: {'a folder; give its files' if path.is_dir() else 'no such file'}")
        if targets.count(target) > 1:
            raise DataError(f"{path}: two of the files have this name")
        if target.exists() and not replace and sha256_file(path) != sha256_file(target):
            raise DataError(f"{target}: another document has this name; --replace takes its place")
    folder.mkdir(parents=True, exist_ok=True)
    for path, target in zip(files, targets, strict=True):
        same = target.exists() and sha256_file(path) == sha256_file(target)
        if not same:
            _copy(path, target)
        yield target, not same


def as_jsonl(chunks: Iterable[Chunk]) -> Iterator[str]:
    """One chunk a line, as stages read them."""
    for chunk in chunks:
        yield json.dumps(chunk.to_row(), ensure_ascii=False) + "\n"


def as_csv(chunks: Iterable[Chunk]) -> Iterator[str]:
    """A header, then one chunk a row."""
    yield ",".join(COLUMNS) + "\n"
    for chunk in chunks:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(getattr(chunk, column) for column in COLUMNS)
        yield buffer.getvalue()


def as_markdown(chunks: Iterable[Chunk]) -> Iterator[str]:
    """Documents and their sections as headings, chunks as they follow each other."""
    for (_, document), members in groupby(chunks, key=lambda chunk: (chunk.kind, chunk.document)):
        yield f"# {document}\n\n"
        for section, parts in groupby(members, key=lambda chunk: chunk.section):
            yield f"## {section}\n\n" if section else ""
            yield from (f"{chunk.text}\n\n" for chunk in parts)


EXPORTS: dict[str, Callable[[Iterable[Chunk]], Iterator[str]]] = {
    "jsonl": as_jsonl,
    "csv": as_csv,
    "markdown": as_markdown,
}


def _is_folder(path: Path) -> bool:
    return path.is_dir() or (not path.exists() and not path.suffix)


def _copy(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        shutil.copyfile(path, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
