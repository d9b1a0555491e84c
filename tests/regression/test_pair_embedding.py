from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.engine import Engine
from stages.core.errors import ConfigError, DataError
from stages.core.schema import Embedder, Model
from stages.core.workspace import Workspace
from stages.regression import pair_embedding
from stages.regression.pair_embedding import HiddenStateEmbedder, SentencePairEmbedder, load_pair_embedder
from stages.regression.task import RegressionTask


@dataclass
class Settings:
    task: RegressionTask
    model: Model = field(default_factory=lambda: Model(name="random", kind="build", max_context_tokens=512))
    embedder: Embedder = field(
        default_factory=lambda: Embedder(name="fake", package="fake", dimension=3, max_tokens=100)
    )
    kind: str = "hidden_states"
    batch_size: int = 4
    max_length: int = 100


@pytest.fixture
def embedder(task: RegressionTask, base_workspace: Workspace) -> HiddenStateEmbedder:
    loaded = load_pair_embedder(Settings(task), base_workspace)
    assert isinstance(loaded, HiddenStateEmbedder)
    return loaded


def wild_pairs(num: int) -> list[tuple[str, str]]:
    draw = random.Random(1)
    return [("x" * draw.randint(1, 40), "y " * draw.randint(1, 20)) for _ in range(num)]


def test_it_is_the_mean_of_the_last_hidden_states_without_the_begin_token(
    embedder: HiddenStateEmbedder, base_workspace: Workspace
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base_workspace.read("models/base/random")
    ids = AutoTokenizer.from_pretrained(folder)("<|begin|>A: x\nB: yy", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = AutoModelForCausalLM.from_pretrained(folder)(ids, output_hidden_states=True).hidden_states[-1]
    expected = states[0, 1:].mean(0).numpy()
    np.testing.assert_allclose(embedder.encode([("x", "yy")])[0], expected, rtol=0, atol=1e-6)


def test_a_pair_has_the_same_vector_in_any_batch(embedder: HiddenStateEmbedder) -> None:
    pairs = wild_pairs(13)
    together = embedder.encode(pairs)
    alone = np.concatenate([embedder.encode([pair]) for pair in pairs])
    assert (together.dtype, together.shape) == (np.float32, (13, 64))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01  # and not all alike


def test_the_order_of_the_pairs_changes_no_bit(embedder: HiddenStateEmbedder) -> None:
    pairs = wild_pairs(13)
    order = random.Random(2).sample(range(13), 13)
    assert (embedder.encode([pairs[n] for n in order]) == embedder.encode(pairs)[order]).all()


def test_a_pair_and_its_mirror_image_are_two_texts(embedder: HiddenStateEmbedder) -> None:
    vectors = embedder.encode([("x", "y"), ("y", "x"), (" x ", "y")])
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    assert (vectors[0] == vectors[2]).all()


def test_nothing_to_embed(embedder: HiddenStateEmbedder) -> None:
    assert len(embedder.encode([])) == 0


def test_long_pairs_are_shortened_evenly_and_counted(embedder: HiddenStateEmbedder) -> None:
    long, short = "word " * 40, "few"
    assert embedder.num_shortened([(short, short), (long, short), (long, long)]) == 3
    kept = embedder._ids(embedder._shortened((long, long)))
    assert 90 < len(kept) <= 100
    again = embedder.encode([(long, long), (long + "rest", long)])
    assert (again[0] == again[1]).all()  # what was cut off is not read


def test_a_special_token_in_a_text_is_read_as_text(embedder: HiddenStateEmbedder, chat_tokenizer: Any) -> None:
    ids = embedder._ids(["<|end|>", "<|begin|>"])
    assert chat_tokenizer.convert_ids_to_tokens(ids).count("<|begin|>") == 1
    assert "<|end|>" not in chat_tokenizer.convert_ids_to_tokens(ids)


def test_a_model_that_gives_no_numbers_is_refused(task: RegressionTask, chat_tokenizer: Any) -> None:
    import torch

    class Broken:
        device = "cpu"
        config = type("Config", (), {"hidden_size": 2})

        def base_model(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            states = torch.full((*input_ids.shape, 2), float("nan"))
            return type("Output", (), {"last_hidden_state": states})

    with pytest.raises(DataError, match="hidden states are not finite"):
        pool = pair_embedding._pool_here(lambda rows: pair_embedding._pooled(Broken(), rows, 0))
        HiddenStateEmbedder(pool, chat_tokenizer, task, 100, 4).encode([("x", "y")])


def test_the_fingerprint_follows_what_decides_the_vectors(task: RegressionTask, base_workspace: Workspace) -> None:
    def print_of(**changes: Any) -> str:
        return load_pair_embedder(replace(Settings(task), **changes), base_workspace).fingerprint

    first = print_of()
    assert print_of(batch_size=1) == first
    shown = replace(task, prompt=replace(task.prompt, pair="{a} and {b}"))
    low = Model(name="random", kind="build", max_context_tokens=512, dtype="bfloat16")
    assert len({first, print_of(max_length=50), print_of(task=shown), print_of(model=low)}) == 4


def test_more_tokens_than_the_model_reads_are_refused(task: RegressionTask, base_workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="max_length: 513 tokens, but the model random reads 512"):
        load_pair_embedder(Settings(task, max_length=513), base_workspace)


class Encoder:
    """Counts letters; reads `max_tokens` characters."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder, self.fingerprint = embedder, f"letters-{embedder.max_tokens}"

    def encode_queries(self, texts: Sequence[str]) -> Any:
        raise AssertionError("pairs are passages")

    def encode_passages(self, texts: Sequence[str]) -> Any:
        return np.array([[text.count(letter) for letter in "xyz"] for text in texts], dtype=np.float32)

    def num_truncated(self, texts: Sequence[str]) -> int:
        return sum(len(text) > self.embedder.max_tokens for text in texts)


def test_a_sentence_encoder_reads_the_shown_pair(task: RegressionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_embedding, "load_embedder", Encoder)
    config = Settings(task, kind="encoder", max_length=60)
    loaded = load_pair_embedder(config, Workspace())
    assert isinstance(loaded, SentencePairEmbedder)
    assert loaded.encode([("xx", "yz")]).tolist() == [[2, 1, 1]]
    assert loaded.encode([("x" * 50, "y" * 50)]).tolist() == [[26, 26, 0]]  # 60 less "A: " and "\nB: "
    assert loaded.num_shortened([("xx", "yz"), ("x" * 50, "y" * 50)]) == 2
    longer = load_pair_embedder(replace(config, max_length=61), Workspace())
    whole = load_pair_embedder(replace(config, max_length=500), Workspace())  # the encoder reads 100
    assert len({loaded.fingerprint, longer.fingerprint, whole.fingerprint}) == 3
    assert whole.fingerprint == load_pair_embedder(replace(config, max_length=100), Workspace()).fingerprint


@pytest.mark.slow
def test_workers_on_ray_give_the_same_bytes(
    task: RegressionTask, base_workspace: Workspace, ray_here: Engine, tmp_path: Path
) -> None:
    pairs = wild_pairs(13)
    expected = load_pair_embedder(Settings(task), base_workspace).encode(pairs)
    on_ray = load_pair_embedder(Settings(task), base_workspace, ray_here, tmp_path / "kept")
    np.testing.assert_array_equal(on_ray.encode(pairs), expected)
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 4
    kept[0].unlink()
    here = load_pair_embedder(Settings(task), base_workspace, Engine(), tmp_path / "kept")
    np.testing.assert_array_equal(here.encode(pairs), expected)


def test_another_base_than_the_stage_has_seen_is_refused(task: RegressionTask, base_workspace: Workspace) -> None:
    with pytest.raises(DataError, match="a worker's node has another base model"):
        pair_embedding.load_pooling(Settings(task).model, base_workspace, {})
