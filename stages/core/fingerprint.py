"""Content hashes: what a checkpoint, an index or an adapter was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


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
