"""Content hashes: what a checkpoint, an index or an adapter was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.workspace import Workspace


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Relative POSIX path -> hex SHA-256, for every file below `folder` that matches, sorted by path."""
    files = sorted(p for p in folder.rglob(pattern) if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}


def fingerprint(*parts: Any) -> str:
    """Hex SHA-256 over JSON-able values and dataclasses; a Path stands for its content (a folder: all its files)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = sha256_files(part) if part.is_dir() else sha256_file(part)
        elif is_dataclass(part) and not isinstance(part, type):
            part = asdict(part)
        digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()


class KnownHashes:
    """SHA-256 of large files, computed once: remembered while size, time of change and inode stay the same.

    known: absolute path -> [size, mtime in ns, inode, sha256].
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def sha256(self, path: Path) -> str:
        path = path.resolve()
        stat = path.stat()
        now = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        remembered = self.known.get(str(path))
        if not isinstance(remembered, list) or remembered[:3] != now:
            self.known[str(path)] = remembered = [*now, sha256_file(path)]
        return str(remembered[3])


@contextmanager
def known_hashes(workspace: Workspace) -> Iterator[KnownHashes]:
    """The hashes that .cache/verified/files.json remembers; what the block adds is written there, also if it raises.

    An edit that restores size, time and inode is not noticed; `groundtune verify` computes every hash anew.
    """
    file = workspace.cache("verified") / "files.json"
    try:
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    hashes = KnownHashes(dict(known))
    try:
        yield hashes
    finally:
        if hashes.known != known:
            write_json(file, hashes.known)
