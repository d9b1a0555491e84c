"""The same collection on a Chroma server, which several machines search.

A collection holds one index for good, and is named after its content: groundtune-<hash of the index>. So an index that
was built again, or with another embedder, lies beside the older ones, and nobody has to say which is which. Whoever
needs a collection first fills it from data/<domain>/index, which stays the only output of build_index; being filled by
two at once, or again after a kill, changes nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.core.errors import ConfigError, DataError
from stages.core.schema import ChromaServer
from stages.retrieval.chroma_store import GRAPH, add_entries, equal_entries, nearest_entries
from stages.retrieval.embedding import Float32
from stages.retrieval.index import Index

NUM_COMPARED = 16  # vectors that are fetched to see whether they are those of the index
MAX_FLOATS = 1_000_000  # of a request: 20 MB as JSON, where a server takes 40
TOLERANCE = 1e-5


class ChromaServerStore:
    """The collection of `index`, filled where it is not there yet.

    Raises DataError where the server does not answer in time, takes no collection from us, or holds something else
    under its name; ConfigError where the environment has no key.
    """

    def __init__(self, index: Index, server: ChromaServer) -> None:
        self._index = index
        self._groups = equal_entries(index)
        self._name = f"groundtune-{index.hash[:32]}"
        self._url = f"{'https' if server.ssl else 'http'}://{server.host}:{server.port}"
        headers = _headers(server)
        with self._told():
            _check_answers(self._url, headers, server.timeout_s)
            client = _connect(server, headers)
            self._collection = self._filled(client)
            self._check()

    def nearest(self, vectors: Float32, num: int, kinds: Collection[str] | None) -> list[npt.NDArray[np.int64]]:
        """For each of the Q queries about `num` entries, nearest first, of records of these kinds (None: all)."""
        with self._told():
            return nearest_entries(self._collection, self._groups, vectors, num, kinds)

    def _filled(self, client: Any) -> Any:
        # embedding_function=None: Chroma's default would fetch a model.
        collection = client.get_or_create_collection(
            self._name,
            embedding_function=None,
            configuration={"hnsw": GRAPH},
            metadata={"index": self._index.hash, "embedder": self._index.manifest.get("embedder", "")},
        )
        if collection.count() < len(self._groups):
            size = min(client.get_max_batch_size(), max(1, MAX_FLOATS // self._index.vectors.shape[1]))
            add_entries(collection, self._index, self._groups, size)
        return collection

    def _check(self) -> None:
        """Raises DataError where what the server holds is not the index."""
        num_found = self._collection.count()
        if num_found != len(self._groups):
            raise self._wrong(f"holds {num_found} vectors, the index has {len(self._groups)}")
        places = np.unique(np.linspace(0, len(self._groups) - 1, NUM_COMPARED, dtype=int)).tolist()
        found = self._collection.get(ids=[str(place) for place in places], include=["embeddings"])
        held = dict(zip(found["ids"], found["embeddings"], strict=True))
        for place in places:
            expected, vector = self._index.vectors[self._groups[place][0]], held.get(str(place), np.zeros(0))
            if len(vector) != len(expected) or not np.allclose(vector, expected, atol=TOLERANCE):
                raise self._wrong("holds other vectors than the index (of another embedder?)")

    def _wrong(self, what: str) -> DataError:
        return DataError(
            f"{self._url}: collection {self._name} {what}; delete it there, it is filled again from the index"
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the server or the way to it fails with, as our error."""
        import httpx
        from chromadb.errors import ChromaError, NotFoundError

        try:
            yield
        except NotFoundError as error:
            raise DataError(f"{self._url}: collection {self._name} is gone; start again to fill it anew") from error
        except (ChromaError, httpx.HTTPError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{self._url}: no Chroma server, or one that refuses us ({reason}); start one with `chroma run` (see "
                "conf/retrieval/chroma_server.yaml), or choose a store on this machine: retrieval=chroma"
            ) from error


def _headers(server: ChromaServer) -> dict[str, str]:
    if not server.auth_env:
        return {}
    value = os.environ.get(server.auth_env, "").strip()
    if not value:
        raise ConfigError(f"retrieval.server.auth_env: the environment has no {server.auth_env}; export it")
    return {server.auth_header: value}


def _check_answers(url: str, headers: dict[str, str], timeout_s: float) -> None:
    """Chroma's own client would wait for ever."""
    import httpx

    httpx.get(f"{url}/api/v2/heartbeat", headers=headers, timeout=timeout_s).raise_for_status()


def _connect(server: ChromaServer, headers: dict[str, str]) -> Any:
    import chromadb
    from chromadb.config import Settings

    logging.getLogger("httpx").setLevel(logging.WARNING)  # under Hydra a line for each request
    settings = Settings(anonymized_telemetry=False)
    return chromadb.HttpClient(server.host, server.port, server.ssl, headers, settings)
