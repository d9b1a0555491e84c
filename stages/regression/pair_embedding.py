"""Pairs of texts to vectors, by which alike pairs are found.

    embedder = load_pair_embedder(config, workspace)
    embedder.encode([("The island Rinwin wins. ...", "The guild Detu rises. ...")])     # float32 [1, D]

Two kinds. hidden_states: the base model reads the pair as it stands in a prompt, and its last hidden states are
averaged. encoder: a sentence encoder reads the same text. Where it is too long, both texts are shortened evenly:
plain truncation would leave out the second one.

Shapes: N pairs, B of a batch, T tokens, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stages.core.engine import Engine
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import fingerprint
from stages.core.kept_batches import KeptBatches
from stages.core.progress import track
from stages.core.schema import Embedder, Model
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder, load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import token_ids
from stages.prompts.chat import ChatFormat
from stages.regression.answer import show_pair
from stages.regression.pairs import plain
from stages.regression.shortening import num_shortened, shorten_evenly
from stages.regression.task import RegressionTask
from stages.retrieval.corpus_encoder import CorpusEncoder
from stages.retrieval.embedding import Encoder, load_embedder

Float32 = npt.NDArray[np.float32]
Texts = tuple[str, str]
Pool = Callable[
    [list[list[list[int]]]], Iterable[Float32]
]  # batches of rows of token ids -> [B, D] each, in their order

KINDS = ("hidden_states", "encoder")
EMBEDDING_VERSION = 1  # raise it when the same pair starts to get another vector


class EmbeddingConfig(Protocol):
    """What of a config decides the vectors. max_length: of a pair's text, in tokens."""

    task: RegressionTask
    model: Model
    embedder: Embedder
    kind: str
    batch_size: int
    max_length: int


class PairEmbedder(Protocol):
    """What embeds pairs. Rows are in the order of the pairs; (a, b) and (b, a) are two texts, and two vectors."""

    fingerprint: str

    def encode(self, pairs: Sequence[Texts]) -> Float32:
        """float32 [N, D]"""

    def num_shortened(self, pairs: Sequence[Texts]) -> int:
        """How many of the 2 N texts are not embedded as a whole."""


class HiddenStateEmbedder:
    """Mean-pooled last hidden states of a causal language model, as the original system has it.

    Neither padding nor the begin token is in the mean: the latter's state is the same for every text, and of another
    size than all others (attention sinks, Xiao et al., 2023, arXiv:2309.17453).
    """

    def __init__(
        self, pool: Pool, tokenizer: Any, task: RegressionTask, max_length: int, batch_size: int, fingerprint: str = ""
    ) -> None:
        self.fingerprint = fingerprint
        self._pool, self._tokenizer, self._task = pool, tokenizer, task
        self._max_length, self._batch_size = max_length, batch_size
        self._escape = ChatFormat(tokenizer).escape

    def encode(self, pairs: Sequence[Texts]) -> Float32:
        rows = [self._ids(self._shortened(pair)) for pair in pairs]
        # Sorted, so that batches (and with them the last bits) depend on the set of texts, not on their order.
        order = sorted(range(len(rows)), key=lambda n: (-len(rows[n]), rows[n]))
        batches = [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]
        if not rows:
            return np.zeros((0, 0), dtype=np.float32)
        pooled = np.concatenate(list(self._pool([[rows[n] for n in batch] for batch in batches])))
        if not np.isfinite(pooled).all():
            raise DataError("the model's hidden states are not finite; try model.dtype=float32")
        vectors = np.zeros_like(pooled)
        vectors[order] = pooled
        return vectors

    def num_shortened(self, pairs: Sequence[Texts]) -> int:
        return _num_shortened(pairs, self._shortened)

    def _shortened(self, pair: Texts) -> list[str]:
        return _fitted(pair, lambda texts: len(self._ids(texts)) <= self._max_length, self._max_length)

    def _ids(self, texts: list[str]) -> list[int]:
        a, b = map(self._escape, texts)
        return token_ids(self._tokenizer, show_pair(self._task, a, b))


def load_pooling(
    model: Model, workspace: Workspace, files: Mapping[str, str]
) -> Callable[[Sequence[Sequence[int]]], Float32]:
    """The function from B rows of token ids to their mean hidden states, float32 [B, D].

    files: of the base, with their hashes. Raises DataError where the base that lies here is another one.
    """
    folder = resolve_base(workspace, model)
    if _manifest(model, workspace)["files"] != files:
        raise DataError(f"models/base/{model.name}: a worker's node has another base model than this machine")
    loaded, has_begin = load_model(folder, model), load_tokenizer(folder).bos_token_id is not None
    return lambda rows: _pooled(loaded, rows, int(has_begin))


def _pooled(model: Any, rows: Sequence[Sequence[int]], first: int) -> Float32:
    """[B, D] of B rows of ids. Padding on the right: nothing real attends to it, and positions stay as they are."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    with torch.inference_mode():
        # without the head: its [B, T, vocabulary] logits would need more memory than all the rest
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        weights = mask[:, first:, None].to(torch.float32)
        mean = (hidden[:, first:].float() * weights).sum(1) / weights.sum(1)
    pooled: Float32 = mean.cpu().numpy()
    return pooled


class SentencePairEmbedder:
    """A sentence encoder over the text of both; its vectors have length 1."""

    def __init__(self, encoder: Encoder, task: RegressionTask, max_length: int) -> None:
        self._encoder, self._task, self._max_length = encoder, task, max_length
        self.fingerprint = fingerprint(EMBEDDING_VERSION, "encoder", encoder.fingerprint, task.prompt.pair, max_length)

    def encode(self, pairs: Sequence[Texts]) -> Float32:
        return self._encoder.encode_passages([show_pair(self._task, *self._shortened(pair)) for pair in pairs])

    def num_shortened(self, pairs: Sequence[Texts]) -> int:
        return _num_shortened(pairs, self._shortened)

    def _shortened(self, pair: Texts) -> list[str]:
        return _fitted(pair, self._fits, self._max_length)

    def _fits(self, texts: list[str]) -> bool:
        return not self._encoder.num_truncated([show_pair(self._task, *texts)])


def _fitted(pair: Texts, fits: Callable[[list[str]], bool], max_length: int) -> list[str]:
    where = f"the pair {pair[0]:.30} | {pair[1]:.30} in {max_length} tokens"
    return shorten_evenly([plain(text) for text in pair], fits, where)


def _num_shortened(pairs: Sequence[Texts], shortened: Callable[[Texts], list[str]]) -> int:
    return sum(num_shortened([plain(text) for text in pair], shortened(pair)) for pair in pairs)


def load_pair_embedder(
    config: EmbeddingConfig, workspace: Workspace, engine: Engine | None = None, cache: Path | None = None
) -> PairEmbedder:
    """Loads what `config.kind` names, from files that are on this machine, on the accelerator where there is one.

    With `engine` and `cache` it embeds where the engine says, and keeps batches that are done in the cache. Raises
    DataError where files are missing; ConfigError where max_length is more than the base model reads.
    """
    if config.kind == "encoder":
        max_length = min(config.max_length, config.embedder.max_tokens)
        embedder = replace(config.embedder, max_tokens=max_length)
        encoder = CorpusEncoder(embedder, engine, cache) if engine and cache else load_embedder(embedder)
        return SentencePairEmbedder(encoder, config.task, max_length)
    if config.max_length > config.model.max_context_tokens:
        raise ConfigError(
            f"max_length: {config.max_length} tokens, but the model {config.model.name} reads "
            f"{config.model.max_context_tokens} (model.max_context_tokens)"
        )
    tokenizer, base = load_tokenizer(resolve_base(workspace, config.model)), _base_fingerprint(config, workspace)
    load = partial(load_pooling, config.model, workspace, _manifest(config.model, workspace)["files"])
    pool = partial(KeptBatches(cache, engine, base).map, load) if engine and cache else _pool_here(load())
    return HiddenStateEmbedder(pool, tokenizer, config.task, config.max_length, config.batch_size, base)


def _pool_here(pooled: Callable[[Sequence[Sequence[int]]], Float32]) -> Pool:
    return lambda batches: map(pooled, track(batches, "Embedding", len(batches)))


def _base_fingerprint(config: EmbeddingConfig, workspace: Workspace) -> str:
    """The base's weights and tokenizer, and the text that it reads; the batch size shifts values by 1e-7 only."""
    settings = (config.model.dtype, config.task.prompt.pair, config.max_length)
    return fingerprint(EMBEDDING_VERSION, "hidden_states", _manifest(config.model, workspace)["files"], *settings)


def _manifest(model: Model, workspace: Workspace) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((workspace.read(base_folder(model)) / MANIFEST).read_text(encoding="utf-8"))
    return manifest
