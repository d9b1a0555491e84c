"""A GGUF file read back by transformers is the model that it was written from, for every architecture of the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Model
from stages.export.architectures import ARCHITECTURES, architecture_of
from stages.export.comparison import check_metadata, load_gguf
from stages.export.gguf_file import llama3_factors, write_gguf
from stages.export.gguf_folder import check_kinds, write_gguf_folder
from stages.export.llama_cpp import is_installed
from stages.training.merging import compare, prompt_logits

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [200, 100, 7, 262]]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "llama_untied_bias": ("LlamaForCausalLM", {"tie_word_embeddings": False, "attention_bias": True}),
    "llama_tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama3": ("LlamaForCausalLM", {"rope_parameters": LLAMA3}),
    "mistral": ("MistralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True, "vocab_size": 288}),  # its tokenizer adds a token
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 32}),
    "phi3": ("Phi3ForCausalLM", {"pad_token_id": 256}),
}


def exported(folder: Path, kind: str) -> Path:
    file = folder / "gguf" / f"m.{kind}.gguf"
    file.parent.mkdir(exist_ok=True)
    write_gguf(folder, file, kind, "m")
    return file


@pytest.mark.parametrize("name", MODELS)
def test_float32_read_back_gives_the_same_logits(
    build_model: Callable[..., Path], model_config: Model, name: str
) -> None:
    from transformers import AutoModelForCausalLM

    architecture, changes = MODELS[name]
    base = build_model(architecture, **changes)
    file = exported(base, "F32")
    loaded, _ = load_gguf(file, model_config)
    original = AutoModelForCausalLM.from_pretrained(base)
    difference = compare(prompt_logits(original, PROMPTS), prompt_logits(loaded, PROMPTS))
    assert difference.max_logit_difference <= 1e-5
    assert set(loaded.state_dict()) == set(original.state_dict())
    check_metadata(base, file)


@pytest.mark.parametrize(("kind", "limit"), [("F16", 0.1), ("BF16", 1.0), ("Q8_0", 1.5), ("Q4_0", 30.0)])
def test_narrow_types_stay_near(build_model: Callable[..., Path], model_config: Model, kind: str, limit: float) -> None:
    from transformers import AutoModelForCausalLM

    base = build_model()
    file = exported(base, kind)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds["blk.0.attn_q.weight"] == kind
    assert kinds["output_norm.weight"] == "F32"
    assert kinds["token_embd.weight"] == ("Q8_0" if kind == "Q4_0" else kind)
    original = prompt_logits(AutoModelForCausalLM.from_pretrained(base), PROMPTS)
    found = compare(original, prompt_logits(load_gguf(file, model_config)[0], PROMPTS)).max_logit_difference
    assert 0 < found < limit


def test_rows_that_fill_no_block_stay_f16(build_model: Callable[..., Path]) -> None:
    file = exported(build_model(intermediate_size=80), "Q8_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"


def test_a_bfloat16_model_loses_nothing_as_bf16(build_model: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM

    base = build_model(dtype="bfloat16")
    loaded, _ = load_gguf(exported(base, "BF16"), Model("tiny", "build", dtype="bfloat16", max_context_tokens=9))
    wanted = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_the_same_model_gives_the_same_bytes(build_model: Callable[..., Path]) -> None:
    base = build_model()
    first = exported(base, "Q8_0").read_bytes()
    assert exported(base, "Q8_0").read_bytes() == first


def test_llama3_factors_are_those_of_transformers(build_model: Callable[..., Path]) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    base = build_model(head_dim=32, rope_parameters=LLAMA3)
    config = AutoConfig.from_pretrained(base)
    scaled = AutoModelForCausalLM.from_pretrained(base).model.rotary_emb.inv_freq
    plain = 1 / LLAMA3["rope_theta"] ** (torch.arange(0, 32, 2) / 32)
    factors = torch.from_numpy(llama3_factors(config))
    assert torch.allclose(plain / factors, scaled, rtol=1e-6)
    assert len(set(factors.tolist())) > 2  # some are left, some blended, some divided
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(exported(base, "F16")).tensors}
    assert stored["rope_freqs.weight"].tolist() == factors.tolist()


def test_position_scaling_that_gguf_would_drop_is_refused(build_model: Callable[..., Path]) -> None:
    base = build_model(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0})
    with pytest.raises(DataError, match=r"rotary embedding yarn .*Export safetensors only"):
        exported(base, "F16")


@pytest.mark.parametrize("architecture", ["GemmaForCausalLM", "LlamaForSequenceClassification"])
def test_an_architecture_outside_the_table_is_refused_by_name(tmp_path: Path, architecture: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    with pytest.raises(DataError, match=rf"architecture {architecture} cannot be exported; only LlamaForCausalLM, "):
        architecture_of(tmp_path)


def test_a_quantised_or_broken_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config.json: missing"):
        architecture_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config.json: no valid JSON"):
        architecture_of(tmp_path)
    content = {"architectures": [next(iter(ARCHITECTURES))], "quantization_config": {"load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the weights are quantised"):
        architecture_of(tmp_path)


def test_metadata_that_differs_is_noticed(build_model: Callable[..., Path]) -> None:
    base = build_model()
    file = exported(base, "F32")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 4}))
    with pytest.raises(DataError, match=r"num_key_value_heads reads 2, the model has 4"):
        check_metadata(base, file)
    (base / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(DataError, match=r"rms_norm_eps reads"):
        check_metadata(base, file)


def test_k_quants_need_llama_cpp() -> None:
    check_kinds(["F16", "Q8_0"])
    if not is_installed():
        with pytest.raises(ConfigError, match=r"Q4_K_M is made by llama.cpp: `pip install -e '.\[llama\]'`"):
            check_kinds(["F16", "Q4_K_M"])


def test_k_quants(build_model: Callable[..., Path], byte_tokenizer: Any) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it makes the K-quants")
    base = build_model(hidden_size=256, intermediate_size=512)
    (file,) = write_gguf_folder(base, ["Q4_K_M"], "m", byte_tokenizer, "", 512)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert "Q4_K" in kinds
    assert sorted(path.name for path in file.parent.iterdir()) == ["Modelfile.Q4_K_M", "m.Q4_K_M.gguf"]
