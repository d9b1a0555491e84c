"""Vectors of chunk texts, kept by content, so that only texts never seen before are embedded.

The file .cache/knowledge_vectors/<fingerprint of the embedder>.sqlite is shared by all domains and may be deleted at
any time. It is written block by block: what was embedded before a kill stays.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from stages.retrieval.embedding import Encoder, Float32

BLOCK = 1024  # texts embedded between two commits
CACHE = "knowledge_vectors"


def cached_vectors(load: Callable[[], Encoder], cache: Path, fingerprint: str, texts: Sequence[str]) -> Float32:
    """float32[N, D], rows of length 1, of these passages. load: called only where a text is new."""
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    with closing(sqlite3.connect(cache / f"{fingerprint}.sqlite", timeout=60)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (sha256 BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        missing = {key: text for key, text in zip(keys, texts, strict=True) if not _known(connection, key)}
        if missing:
            _embed(connection, load(), list(missing.items()))
        find = "SELECT vector FROM vectors WHERE sha256 = ?"
        rows = [np.frombuffer(connection.execute(find, (key,)).fetchone()[0], dtype=np.float32) for key in keys]
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def _known(connection: sqlite3.Connection, key: bytes) -> bool:
    return connection.execute("SELECT 1 FROM vectors WHERE sha256 = ?", (key,)).fetchone() is not None


def _embed(connection: sqlite3.Connection, encoder: Encoder, missing: Sequence[tuple[bytes, str]]) -> None:
    in_order = sorted(missing, key=lambda item: (-len(item[1]), item[0]))  # of like length: batches without padding
    for start in range(0, len(in_order), BLOCK):
        block = in_order[start : start + BLOCK]
        vectors = encoder.encode_passages([text for _, text in block])
        rows = [(key, vector.tobytes()) for (key, _), vector in zip(block, vectors, strict=True)]
        with connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
