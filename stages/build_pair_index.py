"""Pairs to vectors, and for every pair the most alike ones of the training part.

The base model reads each pair, and the mean of its last hidden states is the pair's vector (or a sentence encoder
reads it: kind). The nearest training pairs, never the pair itself nor its mirror image, go with their values into the
prompts of training, evaluation and `groundtune predict`.

    reads   data/<task>/pairs, models/base/<model> (kind=hidden_states)
    writes  data/<task>/pair_index/ (stages/regression/pair_index.py says what lies in it)
            reports/<task>/build_pair_index/metrics.json

Vectors are kept in .cache/build_pair_index batch by batch until the index is written: a rerun after a kill goes on.

    python -m stages.build_pair_index
    python -m stages.build_pair_index build_pair_index.kind=encoder build_pair_index.limit=10
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import MISSING

from stages.core.atomic import new_folder, write_json
from stages.core.engine import Engine
from stages.core.fingerprint import fingerprint, sha256_files
from stages.core.jsonl import write_jsonl
from stages.core.schema import Embedder, Model, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.regression.pair_embedding import KINDS, Float32, Texts, load_pair_embedder
from stages.regression.pair_index import (
    DISTANCE_DECIMALS,
    MANIFEST,
    Found,
    PairIndex,
    neighbours_path,
    read_pairs,
    vectors_path,
)
from stages.regression.pairs import Pair
from stages.regression.task import PARTS, SPLITS, RegressionTask

MIN_LENGTH = 16  # tokens in which something of two texts can stand


@dataclass
class Config:
    """Mirrors conf/build_pair_index/default.yaml."""

    task: RegressionTask = MISSING
    model: Model = MISSING
    embedder: Embedder = MISSING
    kind: str = "hidden_states"
    top_k: int = 5
    batch_size: int = 32
    max_length: int = 512
    limit: int = 0
    num_threads: int = 0
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "kind")
        if self.top_k < 1 or self.batch_size < 1:
            raise ValueError("top_k and batch_size must be at least 1")
        if self.max_length < MIN_LENGTH:
            raise ValueError(f"max_length: {self.max_length} tokens hold no pair; at least {MIN_LENGTH}")
        if self.limit < 0 or self.num_threads < 0:
            raise ValueError("limit and num_threads must be at least 0")


@dataclass(frozen=True)
class Embedded:
    """One part of a split: its pairs, their vectors [N, D], and what was found for each in the training part."""

    split: str
    part: str
    pairs: list[Pair]
    vectors: Float32
    found: list[Found]
    known: list[Pair]  # the rows that `found` means

    def rows(self) -> Iterator[dict[str, Any]]:
        for pair, found in zip(self.pairs, self.found, strict=True):
            near = [{"id": self.known[row].id, "distance": distance} for row, distance in found]
            yield {"id": pair.id, "neighbours": near}


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Builds and writes the index; returns the metrics.

    Raises DataError where pairs or embedder are missing, or a pair cannot be shortened enough.
    """
    folder = workspace.read(f"data/{config.task.name}/pairs")
    pairs = {(split, part): read_pairs(folder, split, part, config.limit) for split in SPLITS for part in PARTS}
    texts = sorted({(pair.a, pair.b) for part in pairs.values() for pair in part})  # most stand in both splits
    _set_threads(config)
    cache = workspace.cache("build_pair_index", fingerprint(config.task.name, str(workspace.outputs))[:16])
    embedder = load_pair_embedder(config, workspace, config.engine, cache)
    vectors = dict(zip(texts, embedder.encode(texts), strict=True))
    parts = [embedded for split in SPLITS for embedded in _embedded(split, pairs, vectors, config.top_k)]
    with new_folder(workspace.write(f"data/{config.task.name}/pair_index")) as index:
        num_bytes = sum(_write(index, part) for part in parts)
        write_json(index / MANIFEST, _manifest(config, embedder.fingerprint, parts, index))
    metrics = {
        "num_distinct_pairs": len(texts),
        "num_texts_shortened": embedder.num_shortened(texts),
        "dimension": parts[0].vectors.shape[1],
        "index_bytes": num_bytes,
        "splits": {split: {p.part: _sizes(p) for p in parts if p.split == split} for split in SPLITS},
    }
    write_json(workspace.write(f"reports/{config.task.name}/build_pair_index/metrics.json"), metrics)
    rmtree(cache)
    return metrics


def _set_threads(config: Config) -> None:
    if config.num_threads:
        import torch

        torch.set_num_threads(config.num_threads)


def _embedded(
    split: str, pairs: dict[tuple[str, str], list[Pair]], vectors: dict[Texts, Float32], top_k: int
) -> Iterator[Embedded]:
    """The parts of one split; all of them look for neighbours in the training part."""
    rows = {part: np.stack([vectors[pair.a, pair.b] for pair in pairs[split, part]]) for part in PARTS}
    index = PairIndex(pairs[split, "train"], rows["train"])
    for part in PARTS:
        keys = [pair.key for pair in pairs[split, part]]
        found = index.search(rows[part], top_k, keys)
        yield Embedded(split, part, pairs[split, part], rows[part], found, index.pairs)


def _write(folder: Path, part: Embedded) -> int:
    """Writes vectors and neighbours; returns the size of the vectors in bytes."""
    path = vectors_path(folder, part.split, part.part)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, part.vectors, allow_pickle=False)
    write_jsonl(neighbours_path(folder, part.split, part.part), part.rows())
    return path.stat().st_size


def _manifest(config: Config, fingerprint: str, parts: list[Embedded], folder: Path) -> dict[str, Any]:
    return {
        "task": config.task.name,
        "kind": config.kind,
        "embedder": config.model.name if config.kind == "hidden_states" else config.embedder.name,
        "embedder_fingerprint": fingerprint,
        "dimension": parts[0].vectors.shape[1],
        "top_k": config.top_k,
        "files": sha256_files(folder),
    }


def _sizes(part: Embedded) -> dict[str, Any]:
    """mean_first_distance: of the nearest neighbour, over the pairs that have one."""
    first = [found[0][1] for found in part.found if found]
    return {
        "num_pairs": len(part.pairs),
        "mean_first_distance": round(fmean(first), DISTANCE_DECIMALS) if first else None,
        "num_without_neighbours": len(part.found) - len(first),
    }


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
