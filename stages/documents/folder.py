"""The files of a folder, each exactly once, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import DataError


@dataclass(frozen=True)
class Found:
    """A file, or what stands in a file's place with the reason (one of blocks.REASONS) why it is not read.

    source: its path in the folder, as POSIX text; bytes of a name that are not UTF-8 are written as \\xff.
    """

    source: str
    path: Path
    reason: str = ""


def files_of(folder: Path) -> list[Found]:
    """Everything below the folder that is no folder, sorted by source.

    Links to files are followed (DVC may check data out as links), links to folders are not: they may lead in circles.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of documents")
    found = sorted(_walk(folder), key=lambda entry: (entry.source, os.fsencode(entry.path)))
    if not found:
        raise DataError(f"{folder}: the folder of documents is empty")
    return found


def file_at(path: Path, source: str) -> Found:
    """A file that was asked for by name: read even if that begins with a dot."""
    reason = _reason(path)
    return Found(source, path, "" if reason == "hidden" else reason)


def _walk(folder: Path) -> Iterator[Found]:
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:
            yield Found(source_name(folder, current), current, "unreadable")
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                waiting.append(path)
            else:
                yield Found(source_name(folder, path), path, _reason(path))


def _reason(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "link" if path.is_symlink() else "unreadable"
    if stat.S_ISDIR(mode):
        return "link"
    return "" if stat.S_ISREG(mode) else "not_a_file"


def source_name(folder: Path, path: Path) -> str:
    """The path in the folder as text that every database and terminal takes."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
