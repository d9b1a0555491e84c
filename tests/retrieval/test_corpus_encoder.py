"""The default embedder over a corpus: here and in two workers on Ray, killed and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.core.engine import Engine
from stages.core.errors import DataError
from stages.retrieval.corpus_encoder import CorpusEncoder
from stages.retrieval.embedding import Float32, SentenceEncoder, load_embedder
from tests.retrieval.test_embedding import MINILM, needs_minilm

SMALL = replace(MINILM, batch_size=16)
TEXTS = [f"Who founded mill {n}? " + "And when? " * (n % 7) for n in range(90)]

pytestmark = [pytest.mark.slow, needs_minilm]


@pytest.fixture(scope="module")
def expected() -> Float32:
    return load_embedder(SMALL).encode_passages(TEXTS)


def test_killed_here_it_goes_on_with_what_is_missing(
    expected: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[str]] = []
    encode = SentenceEncoder.encode_batch

    def until_killed(encoder: SentenceEncoder, texts: list[str]) -> Float32:
        batches.append(texts)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return encode(encoder, texts)

    monkeypatch.setattr(SentenceEncoder, "encode_batch", until_killed)
    with pytest.raises(KeyboardInterrupt):
        CorpusEncoder(SMALL, Engine(), tmp_path).encode_passages(TEXTS)
    np.testing.assert_array_equal(CorpusEncoder(SMALL, Engine(), tmp_path).encode_passages(TEXTS), expected)
    assert len(batches) == 7  # of six; the fourth was begun twice


def test_ray_gives_the_same_bytes_and_either_engine_goes_on_for_the_other(
    ray_here: Engine, expected: Float32, tmp_path: Path
) -> None:
    on_ray = CorpusEncoder(SMALL, ray_here, tmp_path)
    np.testing.assert_array_equal(on_ray.encode_passages(TEXTS), expected)
    assert on_ray.num_truncated(TEXTS) == 0
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 6
    for engine in (Engine(), ray_here):
        times = [path.stat().st_mtime_ns for path in kept[2:]]
        for path in kept[:2]:
            path.unlink()
        np.testing.assert_array_equal(CorpusEncoder(SMALL, engine, tmp_path).encode_passages(TEXTS), expected)
        assert [path.stat().st_mtime_ns for path in kept[2:]] == times


def test_a_worker_with_other_weights_is_refused(ray_here: Engine, tmp_path: Path) -> None:
    encoder = CorpusEncoder(MINILM, ray_here, tmp_path)
    encoder.fingerprint = "of other weights"
    with pytest.raises(DataError, match="a worker's node has other weights or settings"):
        encoder.encode_passages(["Who?"])
