"""What documents were turned into, kept by content: a document that has not changed is not read again.

    cache = DocumentCache(folder, settings)     # settings: all that the result depends on besides the file
    key = (sha256, ".pdf")
    cache.put(key, {"title": "..."}, [...])     # at once on disk: a killed process loses nothing
    cache.summary(key), cache.pieces(key)       # each None where nothing is kept

It may be deleted at any time, and a damaged one is begun anew.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stages.core.fingerprint import fingerprint, sha256_files

FILE = "documents.sqlite"
LIBRARIES = ("pypdfium2", "lxml", "markdown-it-py", "charset-normalizer")
WAIT_S = 60  # for another ingest that is writing


Key = tuple[str, str]  # SHA-256 of a file, and the suffix of its name, which says how to read it


class DocumentCache:
    """Two dictionaries on disk: a document's summary, which is small, and its pieces; both anything JSON can hold."""

    def __init__(self, folder: Path, settings: Any) -> None:
        self._path = folder / FILE
        self._settings = fingerprint(settings, reader_version())
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def summary(self, key: Key) -> dict[str, Any] | None:
        return self._get("summary", key)  # type: ignore[no-any-return]  # what `put` was given

    def pieces(self, key: Key) -> list[Any] | None:
        return self._get("pieces", key)  # type: ignore[no-any-return]

    def put(self, key: Key, summary: dict[str, Any], pieces: list[Any]) -> None:
        row = (self._settings, *key, _packed(summary), _packed(pieces))
        with self._mended():
            self._connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", row)

    def _get(self, column: str, key: Key) -> Any:
        with self._mended():
            query = f"SELECT {column} FROM documents WHERE settings = ? AND sha256 = ? AND suffix = ?"  # noqa: S608
            row = self._connection.execute(query, (self._settings, *key)).fetchone()
            return json.loads(zlib.decompress(row[0])) if row else None
        return None

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """A damaged file is replaced by an empty one, and the block is left as if nothing had been there."""
        try:
            yield
        except sqlite3.OperationalError:  # locked, or the disk is full: not damage
            raise
        except (sqlite3.DatabaseError, zlib.error, ValueError):
            self._connection.close()
            self._connection = self._open(anew=True)

    def _open(self, anew: bool = False) -> sqlite3.Connection:
        if anew:
            for path in self._path.parent.glob(f"{FILE}*"):
                path.unlink()
        connection = sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # after a power failure it may be damaged, and is begun anew
            connection.execute(
                "CREATE TABLE IF NOT EXISTS documents (settings TEXT, sha256 TEXT, suffix TEXT, summary BLOB NOT NULL, "
                "pieces BLOB NOT NULL, PRIMARY KEY (settings, sha256, suffix))"
            )
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            connection.close()
            return self._open(anew=True)
        return connection


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=False).encode("utf-8"), 1)


def reader_version() -> dict[str, Any]:
    """What decides how a file is read: the code of this package and the libraries that it calls."""
    return {
        "code": sha256_files(Path(__file__).parent, "*.py"),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
