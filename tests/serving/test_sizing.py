from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.core.errors import DataError
from stages.core.schema import Lora, Training
from stages.serving.doctor.sizing import ModelSize, num_parameters_in_name, read_model_size


def write_model(folder: Path) -> None:
    layer = {"layers.0.q_proj.weight": (4, 8), "layers.0.up_proj.weight": (16, 8), "layers.0.norm.weight": (8,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in layer.items()}, folder / "a.safetensors")
    save_file({"embed.weight": np.zeros((10, 8), np.float16)}, folder / "b.safetensors")
    config = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16, "vocab_size": 10}
    (folder / "config.json").write_text(json.dumps(config))


def test_parameters_are_counted_over_all_shards_without_loading(tmp_path: Path) -> None:
    write_model(tmp_path)
    size = read_model_size(tmp_path)
    assert size.num_parameters == 4 * 8 + 16 * 8 + 8 + 10 * 8
    assert size.weights_bytes("bfloat16") == 2 * 248
    assert size.weights_bytes("float32") == 4 * 248


def test_lora_parameters_are_r_times_in_plus_out(tmp_path: Path) -> None:
    write_model(tmp_path)
    size = read_model_size(tmp_path)
    assert size.num_lora_parameters(3, ["q_proj", "up_proj"]) == 3 * (4 + 8) + 3 * (16 + 8)
    assert size.num_lora_parameters(3, ["v_proj"]) == 0


def test_lora_parameters_agree_with_peft() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    size = ModelSize({name: tuple(tensor.shape) for name, tensor in model.named_parameters()}, config.to_dict())
    modules = ["q_proj", "down_proj"]
    trainable, _ = get_peft_model(model, LoraConfig(r=4, target_modules=modules)).get_nb_trainable_parameters()
    assert size.num_lora_parameters(4, modules) == trainable


def training(**changes: object) -> Training:
    values = {"learning_rate": 1.0, "num_epochs": 1, "batch_size": 2, "max_length": 5}
    return Training(**{**values, **changes})  # type: ignore[arg-type]


def test_training_memory_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    write_model(tmp_path)
    size = read_model_size(tmp_path)
    lora = Lora(r=3, alpha=3, modules=["q_proj"])
    activations = 2 * 5 * ((8 * 8 + 4 * 16) * 4 + 10 * (4 + 8))
    assert size.lora_training_bytes("float32", lora, training()) == 248 * 4 + 36 * 16 + activations


def test_checkpointing_and_short_texts_save_memory(tmp_path: Path) -> None:
    write_model(tmp_path)
    size = read_model_size(tmp_path)
    size.config["num_hidden_layers"] = 12
    lora = Lora(r=3, alpha=3, modules=["q_proj"])
    plain = size.lora_training_bytes("float32", lora, training())
    assert size.lora_training_bytes("float32", lora, training(activation_checkpointing=True)) < plain
    assert size.lora_training_bytes("float32", lora, training(max_length=4)) < plain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8_000_000_000),
        ("Qwen/Qwen2.5-0.5B-Instruct", 500_000_000),
        ("Vikhrmodels/Vikhr-YandexGPT-5-Lite-8B-it", 8_000_000_000),
        ("microsoft/Phi-3-mini-4k-instruct", None),
        ("owner/v2b-model", None),
        ("", None),
    ],
)
def test_the_size_in_a_name(name: str, expected: int | None) -> None:
    assert num_parameters_in_name(name) == expected


@pytest.mark.parametrize("content", [b"", b"12", b"\xff" * 40, b"\x04" + b"\x00" * 20])
def test_a_broken_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_model(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.safetensors: not a whole safetensors file"):
        read_model_size(tmp_path)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match="only safetensors are read"):
        read_model_size(tmp_path)
