"""The stage build_pair_index, with an embedder that reads the number in each text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from stages import build_pair_index
from stages.build_pair_index import Config, run
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_file, sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.regression.pair_index import PairIndex, known_neighbours, read_pairs, read_vectors
from stages.regression.pairs import Pair

SPLITS, PARTS = ("by_contract", "by_pair"), ("train", "validation", "test")


def pair(a: int, b: int, value: float = 0.5) -> Pair:
    return Pair(f"{a}--{b}", str(a), str(b), f"text {a}", f"text {b}", value)


class NumberEmbedder:
    """(text 3, text 5) -> [3, 5]."""

    fingerprint = "numbers"

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Any:
        self.read += pairs
        return np.array([[float(text.split()[1]) for text in pair] for pair in pairs], dtype=np.float32)

    def num_shortened(self, pairs: Sequence[tuple[str, str]]) -> int:
        return sum(text == "text 99" for pair in pairs for text in pair)


def config(**changes: Any) -> Config:
    composed = OmegaConf.create({"seed": 13, "engine": {"kind": "local"}})
    composed.build_pair_index = OmegaConf.load(CONF / "build_pair_index" / "default.yaml")
    composed.embedder = OmegaConf.load(CONF / "embedder" / "minilm.yaml")
    for part in ("regression/contracts", "model/tiny"):
        composed = OmegaConf.merge(composed, OmegaConf.load(CONF / f"{part}.yaml"))
    for key, value in changes.items():
        OmegaConf.update(composed, f"build_pair_index.{key}", value)
    return parse_section(Config, composed.build_pair_index, "build_pair_index")


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> NumberEmbedder:
    embedder = NumberEmbedder()
    monkeypatch.setattr(build_pair_index, "load_pair_embedder", lambda *_: embedder)
    return embedder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A pair and its mirror image in the training part, and pairs of the test part that lie near each other."""
    parts = {
        "train": [pair(1, 2, -0.5), pair(2, 1, 0.1), pair(10, 20, 0.2), pair(99, 99, 0.3)],
        "validation": [pair(9, 20)],
        "test": [pair(2, 3), pair(2, 4)],
    }
    for split in SPLITS:
        for part in PARTS:
            path = tmp_path / "data" / "contracts" / "pairs" / split / f"{part}.jsonl"
            write_jsonl(path, (one.to_row() for one in parts[part]))
    return Workspace(tmp_path, tmp_path)


def neighbours(workspace: Workspace, part: str) -> dict[str, list[tuple[str, float]]]:
    rows = read_jsonl(workspace.read(f"data/contracts/pair_index/by_pair/neighbours/{part}.jsonl"))
    return {row["id"]: [(near["id"], near["distance"]) for near in row["neighbours"]] for row in rows}


def test_neighbours_are_of_the_training_part_only(embedder: NumberEmbedder, workspace: Workspace) -> None:
    run(config(top_k=2), workspace)
    assert neighbours(workspace, "test") == {
        "2--3": [("1--2", 1.414214), ("2--1", 2.0)],
        "2--4": [("1--2", 2.236068), ("2--1", 3.0)],
    }
    assert neighbours(workspace, "validation") == {"9--20": [("10--20", 1.0), ("1--2", 19.697716)]}


def test_a_training_pair_gets_neither_itself_nor_its_mirror_image(
    embedder: NumberEmbedder, workspace: Workspace
) -> None:
    run(config(top_k=1), workspace)
    assert [near[0][0] for near in neighbours(workspace, "train").values()] == ["10--20", "10--20", "1--2", "10--20"]


def test_each_text_pair_is_embedded_once(embedder: NumberEmbedder, workspace: Workspace) -> None:
    metrics = run(config(), workspace)
    assert len(embedder.read) == len(set(embedder.read)) == 7
    assert metrics["num_distinct_pairs"] == 7
    assert metrics["num_texts_shortened"] == 2


def test_the_files_are_what_the_readers_read(embedder: NumberEmbedder, workspace: Workspace) -> None:
    run(config(), workspace)
    pairs, index = workspace.read("data/contracts/pairs"), workspace.read("data/contracts/pair_index")
    train = read_pairs(pairs, "by_pair", "train")
    assert read_vectors(index, "by_contract", "train").tolist() == [[1, 2], [2, 1], [10, 20], [99, 99]]
    assert PairIndex.load(index, "by_pair", train, "numbers").pairs == train
    known = known_neighbours(index, "by_pair", "test", {one.id: one for one in train}, 1)
    assert (known["2--3"][0].a, known["2--3"][0].value) == ("text 1", -0.5)
    manifest = json.loads((index / "manifest.json").read_text())
    assert manifest["embedder_fingerprint"] == "numbers"
    assert (manifest["embedder"], manifest["kind"], manifest["dimension"]) == ("tiny", "hidden_states", 2)
    assert len(manifest["files"]) == 12
    for name, expected in manifest["files"].items():
        assert sha256_file(index / name) == expected


def test_metrics(embedder: NumberEmbedder, workspace: Workspace) -> None:
    metrics = run(config(), workspace)
    assert json.loads(workspace.read("reports/contracts/build_pair_index/metrics.json").read_text()) == metrics
    assert metrics["dimension"] == 2
    assert metrics["index_bytes"] == sum(p.stat().st_size for p in workspace.outputs.rglob("*.npy"))
    assert metrics["splits"]["by_pair"]["validation"] == {
        "num_pairs": 1, "mean_first_distance": 1.0, "num_without_neighbours": 0
    }  # fmt: skip


def test_rebuilt_to_the_byte(embedder: NumberEmbedder, workspace: Workspace) -> None:
    run(config(), workspace)
    before = sha256_files(workspace.outputs)
    run(config(), workspace)
    assert sha256_files(workspace.outputs) == before


def test_a_limit_gives_a_quick_look(embedder: NumberEmbedder, workspace: Workspace) -> None:
    metrics = run(config(limit=1), workspace)
    assert {part["num_pairs"] for split in metrics["splits"].values() for part in split.values()} == {1}
    assert metrics["splits"]["by_pair"]["train"] == {
        "num_pairs": 1, "mean_first_distance": None, "num_without_neighbours": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "words"}, "kind: 'words' is not one of hidden_states, encoder"),
        ({"top_k": 0}, "top_k and batch_size"),
        ({"max_length": 15}, "max_length: 15 tokens hold no pair"),
        ({"limit": -1}, "limit and num_threads"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_missing_pairs_are_named(embedder: NumberEmbedder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data/contracts/pairs: no such file"):
        run(config(), Workspace(tmp_path, tmp_path))
