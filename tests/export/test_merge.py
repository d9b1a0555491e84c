"""The merge of a shard at a time is the merge of the whole model; its memory does not grow with the model."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.core.atomic import new_folder
from stages.core.errors import DataError
from stages.export import tensor_files
from stages.export.adapters import Adapter, read_adapter
from stages.export.merge import CARRIED, carry_over, dequantised, is_quantised_linear, merge_weights
from stages.export.tensor_files import Weights
from stages.generation.model_files import LEGAL
from stages.training.lora import weights_sha256
from stages.training.merging import merge_in_place

torch = pytest.importorskip("torch")

Q = "model.layers.1.self_attn.q_proj.weight"


def merged(base: Path, adapter: Path, target: Path, source: str = "stored") -> dict[str, Any]:
    weights = Weights(base)
    target.mkdir()
    read = read_adapter(adapter, weights_sha256(base), weights.entries)
    merge_weights(weights, read, target, 100_000, source)
    result = Weights(target)
    return {name: result.read(name) for name in result.entries}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bytes_are_those_of_the_merge_in_memory(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = build_model(dtype=dtype)
    adapter = build_adapter(base)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    whole = merge_in_place(PeftModel.from_pretrained(loaded, adapter)).state_dict()
    ours = merged(base, adapter, tmp_path / "merged")
    assert set(ours) == set(whole)
    assert all(ours[name].dtype == whole[name].dtype and torch.equal(ours[name], whole[name]) for name in whole)
    assert not torch.equal(ours[Q], Weights(base).read(Q))


def test_an_adapter_that_breaks_a_weight_is_refused(build_model: Callable[..., Path], tmp_path: Path) -> None:
    weights = Weights(build_model())
    nan = Adapter(tmp_path, 1.0, {Q: (torch.full((1, 64), float("nan")), torch.ones(64, 1))}, {})
    target = tmp_path / "merged"
    target.mkdir()
    with pytest.raises(DataError, match=rf"{Q}: .* not finite"):
        merge_weights(weights, nan, target, 10**9, "stored")


def test_the_dequantised_base_is_the_one_that_training_saw(build_model: Callable[..., Path]) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    base = build_model(intermediate_size=192)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    loaded = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, device_map={"": "cpu"})
    weights = Weights(base)
    seen = 0
    for name, parameter in loaded.named_parameters():
        stored = weights.read(name)
        quantised = hasattr(parameter, "quant_state")
        assert quantised == is_quantised_linear(name, stored)
        if quantised:
            trained_on = dequantize_4bit(parameter.data, parameter.quant_state).float()
            assert torch.equal(dequantised(stored), trained_on)
            assert not torch.equal(stored, trained_on)
            seen += 1
    assert seen == 14


PEAK = """
import re, sys
from pathlib import Path
import torch
from stages.export.adapters import Adapter
from stages.export.merge import merge_weights
from stages.export.tensor_files import Weights
torch.set_num_threads(1)
weights = Weights(Path(sys.argv[1]))
(torch.ones(8, 1) @ torch.ones(1, 8)).isfinite().all()  # what the libraries need on their first call
names = [n for n, e in weights.entries.items() if len(e.shape) == 2]
pair = torch.full((8, 1024), 1e-3), torch.full((1024, 8), 1e-3)

def peak():  # not ru_maxrss: a process inherits that from the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
merge_weights(weights, Adapter(Path(), 1.0, {n: pair for n in names}, {}), Path(sys.argv[2]), int(sys.argv[3]), "stored")
print((peak() - before) * 1024)
"""


def test_the_peak_is_below_one_and_a_half_shards(tmp_path: Path) -> None:
    """12 shards of 32 MB, every weight merged: measured in a process of its own, above what its imports take."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    size = 32 * 2**20
    entries = [
        tensor_files.Entry(f"model.layers.{n}.mlp.up_proj.weight", source, "F32", (1024, 1024)) for n in range(96)
    ]
    tensor_files.write_shards(source, entries, lambda _: torch.ones(1024, 1024), size)
    command = [sys.executable, "-c", PEAK, str(source), str(target), str(size)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert len(list(target.glob("*.safetensors"))) == 12
    assert int(done.stdout) < 1.5 * size
    first = Weights(target).read(entries[0].name)
    assert torch.allclose(first, torch.full((1024, 1024), 1 + 8e-6))


def test_a_full_disk_leaves_no_half_export(
    build_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(build_model())
    write, written = tensor_files.write_safetensors, []

    def full_at_the_second(path: Path, *rest: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(tensor_files, "write_safetensors", full_at_the_second)
    target = tmp_path / "exports" / "rag"
    with pytest.raises(OSError, match="No space left"), new_folder(target) as folder:
        merge_weights(weights, None, folder, 100_000, "stored")
    assert written
    assert list(target.parent.iterdir()) == []


def test_tokenizer_template_and_licence_come_along(build_model: Callable[..., Path], tmp_path: Path) -> None:
    base, origin, target = build_model(), tmp_path / "origin", tmp_path / "target"
    origin.mkdir()
    target.mkdir()
    (origin / "LICENSE.txt").write_text("Terms.")
    (origin / "config.json").write_text("not this one")
    (base / "notes.txt").write_text("private")
    names = sorted(carry_over([base, origin], target, CARRIED) + carry_over([base, origin], target, LEGAL))
    wanted = "LICENSE.txt chat_template.jinja config.json generation_config.json tokenizer.json tokenizer_config.json"
    assert names == wanted.split()
    assert all((target / name).read_bytes() == (base / name).read_bytes() for name in names[1:])
