"""An encoder for as many texts as a corpus has: batch by batch on an engine, and resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from stages.core.engine import Engine
from stages.core.errors import DataError
from stages.core.kept_batches import KeptBatches
from stages.core.schema import Embedder
from stages.retrieval.embedder_files import embedder_fingerprint
from stages.retrieval.embedding import Float32, SentenceEncoder, encode_in_batches, load_embedder


class CorpusEncoder:
    """An Encoder: the vectors of `load_embedder(embedder)`, bit by bit, computed where `engine` says.

    cache: a folder for batches that are done (KeptBatches). Raises DataError as load_embedder does, and where a worker
    finds other weights than this machine.
    """

    def __init__(self, embedder: Embedder, engine: Engine, cache: Path) -> None:
        self.fingerprint = embedder_fingerprint(embedder)
        self._embedder, self._engine = embedder, engine
        self._kept = KeptBatches(cache, engine, self.fingerprint)

    def encode_queries(self, texts: Sequence[str]) -> Float32:
        """float32[N, D]"""
        return self._encode([self._embedder.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Float32:
        """float32[N, D]"""
        return self._encode([self._embedder.passage_prefix + text for text in texts])

    def num_truncated(self, texts: Sequence[str]) -> int:
        """How many passages are longer than the encoder reads; counted here."""
        return self._here.num_truncated(texts) if texts else 0

    def _encode(self, texts: list[str]) -> Float32:
        return encode_in_batches(texts, self._embedder, partial(self._kept.map, self._load))

    @property
    def _load(self) -> Callable[[], Callable[[list[str]], Float32]]:
        if self._engine.kind == "local":
            return lambda: self._here.encode_batch  # loaded once, for num_truncated too
        return partial(_load_in_worker, self._embedder, self.fingerprint)

    @cached_property
    def _here(self) -> SentenceEncoder:
        return load_embedder(self._embedder)


def _load_in_worker(embedder: Embedder, fingerprint: str) -> Callable[[list[str]], Float32]:
    encoder = load_embedder(embedder)
    if encoder.fingerprint != fingerprint:
        raise DataError(f"embedder {embedder.name}: a worker's node has other weights or settings than this machine")
    return encoder.encode_batch
