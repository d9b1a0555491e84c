"""Approximate nearest neighbours in a Chroma collection (HNSW, arXiv:1603.09320).

Opening and querying a Chroma store changes its files, and two identical builds differ: it is no output of a stage
but a cache, made from the index and found by its hash; delete it at any time. The graph is searched widely: on
20,000 clustered vectors the best two records of 500 queries were, filtered or not, those of an exhaustive search.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.core.atomic import new_folder
from stages.core.errors import DataError
from stages.retrieval.embedding import Float32
from stages.retrieval.index import Index

COLLECTION = "entries"
GRAPH = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": 400}
QUERIES_AT_ONCE = 256


class ChromaStore:
    """One collection; equal vectors of one kind are stored once, as many equal ones cut a graph into pieces.

    Ids are places in `groups`, metadata holds the record's kind.
    """

    def __init__(self, index: Index, cache: Path) -> None:
        from filelock import FileLock

        self._groups = equal_entries(index)
        self._folder = cache / "chroma" / index.hash[:32]
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may want it at once: the second waits, then finds it built.
        with FileLock(self._folder.with_suffix(".lock")):
            if not self._folder.exists():
                with new_folder(self._folder) as folder:
                    _build(folder, index, self._groups)
        self._client = _open(self._folder)
        self._collection = self._existing_collection()

    def nearest(self, vectors: Float32, num: int, kinds: Collection[str] | None) -> list[npt.NDArray[np.int64]]:
        """For each of the Q queries about `num` entries, nearest first, of records of these kinds (None: all)."""
        return nearest_entries(self._collection, self._groups, vectors, num, kinds)

    def _existing_collection(self) -> Any:
        from chromadb.errors import ChromaError

        try:
            collection = self._client.get_collection(COLLECTION, embedding_function=None)
            num_found = collection.count()
        except (ChromaError, ValueError) as error:
            raise DataError(f"{self._folder}: unreadable ({error}); it is only a cache: delete the folder") from error
        if num_found != len(self._groups):
            raise DataError(
                f"{self._folder}: {num_found} vectors, the index has {len(self._groups)}; "
                "it is only a cache: delete the folder"
            )
        return collection


def _open(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))


def equal_entries(index: Index) -> list[list[int]]:
    """Entry numbers grouped by kind of record and vector."""
    groups: dict[tuple[str, bytes], list[int]] = {}
    for entry, number in enumerate(index.entries):
        groups.setdefault((index.records[number].kind, index.vectors[entry].tobytes()), []).append(entry)
    return list(groups.values())


def nearest_entries(
    collection: Any, groups: list[list[int]], vectors: Float32, num: int, kinds: Collection[str] | None
) -> list[npt.NDArray[np.int64]]:
    """`nearest` of a store, from a collection that holds `groups`."""
    found: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(vectors), QUERIES_AT_ONCE):
        result = collection.query(
            query_embeddings=vectors[start : start + QUERIES_AT_ONCE],
            n_results=min(num, len(groups)),
            where=None if kinds is None else {"kind": {"$in": sorted(kinds)}},
            include=[],
        )
        for ids in result["ids"]:
            entries = [entry for place in ids for entry in groups[int(place)]]
            found.append(np.array(entries, dtype=np.int64))
    return found


def _build(folder: Path, index: Index, groups: list[list[int]]) -> None:
    client = _open(folder)
    # embedding_function=None: Chroma's default would fetch a model.
    collection = client.create_collection(COLLECTION, embedding_function=None, configuration={"hnsw": GRAPH})
    add_entries(collection, index, groups, client.get_max_batch_size())
    client.close()


def add_entries(collection: Any, index: Index, groups: list[list[int]], size: int) -> None:
    """The first of each group, `size` at once; what is there already is written again."""
    for start in range(0, len(groups), size):
        entries = [group[0] for group in groups[start : start + size]]
        collection.upsert(
            ids=[str(place) for place in range(start, start + len(entries))],
            embeddings=index.vectors[entries],
            metadatas=[{"kind": index.records[index.entries[entry]].kind} for entry in entries],
        )
