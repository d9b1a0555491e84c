"""Weights read and written one tensor at a time are what the library reads and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.export.tensor_files import Entry, Weights, plan_shards, write_safetensors, write_shards

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_shards_are_read_by_the_library_and_by_transformers(
    build_model: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base = build_model(dtype=dtype)
    weights = Weights(base)
    assert weights.model_dtype() == dtype
    target = tmp_path / "shards"
    target.mkdir()
    files = write_shards(target, weights.entries.values(), weights.read, 100_000)
    assert len(files) > 2
    assert all(file.stat().st_size < 102_000 for file in files)
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    wanted = load_file(base / "model.safetensors")
    assert set(written) == set(wanted)
    assert all(torch.equal(written[name], wanted[name]) for name in wanted)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in wanted.values())
    (target / "config.json").write_bytes((base / "config.json").read_bytes())
    loaded = AutoModelForCausalLM.from_pretrained(target).state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)


def test_one_shard_has_the_plain_name_and_no_index(build_model: Callable[..., Path], tmp_path: Path) -> None:
    weights = Weights(build_model())
    target = tmp_path / "one"
    target.mkdir()
    write_shards(target, weights.entries.values(), weights.read, 10**9)
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]


def test_mixed_dtypes_lie_aligned(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {"a": torch.tensor([1, 2, 3], dtype=torch.uint8), "b": torch.tensor([1.5]), "c": torch.ones(3).bfloat16()}
    shapes = {"a": ("U8", (3,)), "b": ("F32", (1,)), "c": ("BF16", (3,))}
    path = tmp_path / "mixed.safetensors"
    write_safetensors(path, [Entry(n, path, *shape) for n, shape in shapes.items()], tensors.__getitem__)
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_shards_hold_everything_in_order_and_no_more_than_fits(sizes: list[int], limit: int) -> None:
    entries = [Entry(str(n), Path("f"), "U8", (size,)) for n, size in enumerate(sizes)]
    shards = plan_shards(entries, limit)
    assert [entry for shard in shards for entry in shard] == entries
    assert all(len(shard) == 1 or sum(entry.num_bytes for entry in shard) <= limit for shard in shards)


def test_layers_are_in_natural_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = ["model.layers.10.w", "model.layers.2.w", "lm_head.w"]
    write_safetensors(path, [Entry(name, path, "F32", (1,)) for name in names], lambda _: torch.zeros(1))
    assert list(Weights(tmp_path).entries) == ["lm_head.w", "model.layers.2.w", "model.layers.10.w"]


def test_broken_and_doubled_files_are_refused(build_model: Callable[..., Path]) -> None:
    base = build_model()
    whole = (base / "model.safetensors").read_bytes()
    (base / "more.safetensors").write_bytes(whole)
    with pytest.raises(DataError, match=r"lm_head.weight is in model.safetensors and in more.safetensors"):
        Weights(base)
    (base / "more.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"more.safetensors: not a whole safetensors file"):
        Weights(base)


def test_no_weights_and_a_tensor_that_is_not_as_planned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no weights in safetensors"):
        Weights(tmp_path)
    path = tmp_path / "x.safetensors"
    with pytest.raises(DataError, match=r"w: torch.float32 \(2,\), planned: F32 \(3,\)"):
        write_safetensors(path, [Entry("w", path, "F32", (3,))], lambda _: torch.zeros(2))
