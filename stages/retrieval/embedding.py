"""Texts to unit vectors.

    encoder = load_embedder(config.embedder)
    encoder.encode_queries(["Who founded Bako?"])     # float32[1, 384], for searching
    encoder.encode_passages(["Bako is a mill."])      # float32[1, 384], for what is searched

Some encoders (E5, arXiv:2212.03533; BGE) were trained with a prefix for queries, for passages or for both:
it stands in conf/embedder. Importing sentence_transformers costs 6 CPU-seconds, so that `cached_encode`, which
finds its vectors again by fingerprint and texts, loads the encoder only when it has to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stages.core.atomic import save_array
from stages.core.errors import DataError
from stages.core.progress import track
from stages.core.schema import Embedder
from stages.retrieval.embedder_files import embedder_fingerprint, resolve_embedder

Float32 = npt.NDArray[np.float32]  # N texts, D dimensions

KINDS = ("query", "passage")


class Encoder(Protocol):
    """What embeds texts. Rows are in the order of the texts and have length 1."""

    fingerprint: str

    def encode_queries(self, texts: Sequence[str]) -> Float32:
        """float32[N, D]"""

    def encode_passages(self, texts: Sequence[str]) -> Float32:
        """float32[N, D]"""

    def num_truncated(self, texts: Sequence[str]) -> int:
        """How many passages are longer than the encoder reads."""


class SentenceEncoder:
    """A sentence-transformers model; the same texts give the same bits, batch by batch of equal length."""

    def __init__(self, model: Any, embedder: Embedder, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._model = model
        self._embedder = embedder

    def encode_queries(self, texts: Sequence[str]) -> Float32:
        return self._encode([self._embedder.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Float32:
        return self._encode([self._embedder.passage_prefix + text for text in texts])

    def num_truncated(self, texts: Sequence[str]) -> int:
        if not texts:
            return 0
        prefixed = [self._embedder.passage_prefix + text for text in texts]
        ids = self._model.tokenizer(prefixed, truncation=False, verbose=False)["input_ids"]
        return sum(len(row) > self._embedder.max_tokens for row in ids)

    def encode_batch(self, texts: list[str]) -> Float32:
        """float32[N, D] of the texts as they are, in one batch, of any length."""
        size = self._embedder.batch_size
        rows: Float32 = self._model.encode(texts, batch_size=size, show_progress_bar=False).astype(np.float32)
        return rows

    def _encode(self, texts: list[str]) -> Float32:
        return encode_in_batches(
            texts, self._embedder, lambda batches: map(self.encode_batch, track(batches, "Embedding"))
        )


def encode_in_batches(
    texts: Sequence[str], embedder: Embedder, encode: Callable[[list[list[str]]], Iterable[Float32]]
) -> Float32:
    """float32[N, D], rows of length 1. encode: batches of texts to float32[B, D] each, in their order."""
    if not texts:
        return np.zeros((0, embedder.dimension), dtype=np.float32)
    # Sorted, so that batches (and with them the last bits) depend on the set of texts, not on their order.
    distinct = sorted(set(texts), key=lambda text: (-len(text), text))
    size = embedder.batch_size
    rows = encode([distinct[start : start + size] for start in range(0, len(distinct), size)])
    vectors = _normalised(np.concatenate(list(rows)), embedder)
    place = {text: number for number, text in enumerate(distinct)}
    return vectors[[place[text] for text in texts]]


def _normalised(vectors: Float32, embedder: Embedder) -> Float32:
    name, expected = embedder.name, embedder.dimension
    if vectors.shape[1] != expected:
        raise DataError(f"embedder {name}: gives {vectors.shape[1]} dimensions; embedder.dimension says {expected}")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise DataError(f"embedder {name}: gives NaN or zero vectors; try embedder.dtype=float32")
    normalised: Float32 = vectors / norms
    return normalised


def load_embedder(embedder: Embedder) -> SentenceEncoder:
    """Loads the encoder from files that are on this machine, on the accelerator where there is one.

    Raises DataError where its package or files are missing (it says how to get them) or are not the pinned ones.
    """
    fingerprint = embedder_fingerprint(embedder)
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar over 103 tensors that takes 0.1 s
    model = SentenceTransformer(
        str(resolve_embedder(embedder)),
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": getattr(torch, embedder.dtype), "use_safetensors": True},
    )
    model.max_seq_length = embedder.max_tokens
    model.default_prompt_name = None  # prefixes are ours
    return SentenceEncoder(model, embedder, fingerprint)


def cached_encode(
    load: Callable[[], Encoder], cache: Path, fingerprint: str, texts: Sequence[str], kind: str
) -> Float32:
    """float32[N, D] of `texts` from `cache`, or encoded now and put there.

    load: called only on a miss. fingerprint: `embedder_fingerprint(embedder)`. kind: query | passage.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    digest = hashlib.sha256(f"{fingerprint}\0{kind}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    path = cache / f"{digest.hexdigest()}.npy"
    if path.exists():
        cached: Float32 = np.load(path, allow_pickle=False)
        return cached
    encoder = load()
    if encoder.fingerprint != fingerprint:
        raise ValueError(f"encoder {encoder.fingerprint[:12]} was loaded where {fingerprint[:12]} was asked for")
    vectors = encoder.encode_queries(texts) if kind == "query" else encoder.encode_passages(texts)
    save_array(path, vectors)
    return vectors
