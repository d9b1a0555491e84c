"""The index: records, and the vectors that find them. It depends on no store; stores are built from it.

data/<domain>/index/
    records.jsonl    one IndexRecord a line; those made from Q&A come first
    vectors.npy      float32[V, D], rows of length 1: what is searched
    entries.npy      int32[V]: the record (line number from 0) that each vector belongs to, ascending
    queries.npy      float32[Q, D]: the questions of the first Q records, encoded as queries
    manifest.json    format, embedder and its fingerprint, what is embedded, counts, sha256 of the files above
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.schema import Embedder, one_of
from stages.knowledge.records import IndexRecord
from stages.retrieval.embedder_files import embedder_fingerprint
from stages.retrieval.embedding import Float32

Int32 = npt.NDArray[np.int32]

FORMAT = 1
RECORDS, VECTORS, ENTRIES, QUERIES, MANIFEST = (
    "records.jsonl",
    "vectors.npy",
    "entries.npy",
    "queries.npy",
    "manifest.json",
)
EMBED_MODES = ("questions", "text", "answers")
WITHOUT_QUESTIONS = ("text", "reject")
REBUILD = "run `dvc checkout`, or `dvc repro -f -s build_index` to build it again"


@dataclass(frozen=True)
class Index:
    """Shapes as in the module's docstring. `manifest` is empty for an index that was never written."""

    records: list[IndexRecord]
    vectors: Float32
    entries: Int32
    queries: Float32
    manifest: dict[str, Any]

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.entries) or (np.diff(self.entries) < 0).any():
            raise ValueError("entries: one ascending record number for each vector")
        if not np.array_equal(np.unique(self.entries), np.arange(len(self.records))):
            raise ValueError("entries: each record needs at least one vector, each vector a record")
        if len(self._numbers) != len(self.records):
            raise DataError("the index holds two records of the same id")

    @classmethod
    def load(cls, folder: Path, expected_embedder: Embedder | None = None) -> Self:
        """Reads and verifies an index.

        Raises DataError where it is missing, of another format, changed since it was written, or built with
        another embedder than `expected_embedder`, whose query vectors would not fit.
        """
        manifest = _verified_manifest(folder)
        if expected_embedder and manifest["embedder_fingerprint"] != embedder_fingerprint(expected_embedder):
            raise DataError(
                f"{folder}: built with embedder {manifest['embedder']}, but the embedder in use is "
                f"{expected_embedder.name} (or has other weights or settings); run `dvc repro build_index`"
            )
        records = [IndexRecord.from_row(row) for row in read_jsonl(folder / RECORDS)]
        vectors, entries, queries = (np.load(folder / name, allow_pickle=False) for name in (VECTORS, ENTRIES, QUERIES))
        return cls(records, vectors, entries, queries, manifest)

    def write(self, folder: Path, description: dict[str, Any]) -> None:
        """Writes the files into an existing folder; `description` goes into the manifest."""
        write_jsonl(folder / RECORDS, (record.to_row() for record in self.records))
        for name, array in ((VECTORS, self.vectors), (ENTRIES, self.entries), (QUERIES, self.queries)):
            np.save(folder / name, array, allow_pickle=False)
        files = {name: sha256_file(folder / name) for name in (RECORDS, VECTORS, ENTRIES, QUERIES)}
        write_json(folder / MANIFEST, {"format": FORMAT, **description, **self.counts(), "files": files})

    def counts(self) -> dict[str, int]:
        return {
            "num_records": len(self.records),
            "num_vectors": len(self.vectors),
            "num_queries": len(self.queries),
            "dimension": int(self.vectors.shape[1]),
        }

    def __contains__(self, record_id: str) -> bool:
        return record_id in self._numbers

    def number(self, record_id: str) -> int:
        """The record's place in `records`; KeyError where there is none."""
        return self._numbers[record_id]

    def record(self, record_id: str) -> IndexRecord:
        return self.records[self.number(record_id)]

    def entries_of(self, number: int) -> slice:
        """Where the vectors of the record with this number lie."""
        return slice(self._starts[number], self._starts[number + 1])

    def vectors_of(self, record_id: str) -> Float32:
        """float32[n, D]: the vectors that find this record, n >= 1."""
        return self.vectors[self.entries_of(self.number(record_id))]

    def query_vector(self, record_id: str) -> Float32:
        """float32[D]: the question of a Q&A record, encoded as a query; KeyError for other records."""
        number = self.number(record_id)
        if number >= len(self.queries):
            raise KeyError(f"{record_id} is no Q&A record: it has no query vector")
        row: Float32 = self.queries[number]
        return row

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 of what a store is built from: the key of its cache."""
        digest = hashlib.sha256(np.ascontiguousarray(self.vectors).data)
        digest.update(np.ascontiguousarray(self.entries).data)
        for record in self.records:
            digest.update(json.dumps(record.to_row(), sort_keys=True).encode())
        return digest.hexdigest()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {record.id: number for number, record in enumerate(self.records)}

    @cached_property
    def _starts(self) -> list[int]:
        starts: list[int] = np.searchsorted(self.entries, np.arange(len(self.records) + 1)).tolist()
        return starts


def texts_of(record: IndexRecord, embed: str = "questions", without_questions: str = "text") -> list[str]:
    """The texts that stand for a record in the index, one vector each, without repetitions; [] where there are none.

    embed: `questions` (each on its own; a record without any follows `without_questions`: its text, or nothing),
    `text` (the text only), `answers` (the questions and what answers them, in one).
    """
    one_of(embed, EMBED_MODES, "embed")
    one_of(without_questions, WITHOUT_QUESTIONS, "without_questions")
    questions = list(dict.fromkeys(q for question in record.questions if (q := question.strip())))
    text = record.text.strip()
    if embed == "answers":
        texts = ["\n".join([*questions, text])]
    elif embed == "text" or (not questions and without_questions == "text"):
        texts = [text]
    else:
        texts = questions
    return [text for text in texts if text.strip()]


def flatten(texts: Sequence[Sequence[str]]) -> tuple[list[str], Int32]:
    """All texts in one list, and for each the number of the record that it stands for."""
    entries = np.repeat(np.arange(len(texts), dtype=np.int32), [len(group) for group in texts])
    return [text for group in texts for text in group], entries


def _verified_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{path} is missing: {REBUILD}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: broken: {REBUILD}") from error
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path}: format {manifest.get('format')}, this version reads {FORMAT}: {REBUILD}")
    for name, expected in manifest["files"].items():
        if not (folder / name).exists() or sha256_file(folder / name) != expected:
            raise DataError(f"{folder / name}: missing or changed since the index was built: {REBUILD}")
    return manifest
