from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.core.schema import Model
from stages.generation.loading import load_model, write_adapter_note
from stages.regression.adapter_switch import AdapterSwitch
from stages.regression.number_head import NAME, add_head, read_head

MODEL = Model(name="t", kind="local", path="unused", max_context_tokens=64)
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, adapters `a` and `b` of different rank on different modules, and `head` with a number head."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, initializer_range=0.3, **sizes)).save_pretrained(root / "base")
    for name, rank, modules in (("a", 2, ["q_proj"]), ("b", 4, ["v_proj", "gate_proj"])):
        config = LoraConfig(
            r=rank, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM", init_lora_weights=False
        )
        get_peft_model(load_model(root / "base", MODEL), config).save_pretrained(str(root / name))
    with_head = load_model(root / "base", MODEL)
    add_head(with_head)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=[NAME], task_type="CAUSAL_LM")
    trained = get_peft_model(with_head, config)
    trained.base_model.model.number_head.modules_to_save.default.weight.data.fill_(0.1)
    trained.save_pretrained(str(root / "head"))
    for name in ("a", "b", "head"):
        write_adapter_note(root / name, {"prompt_hash": ""})
    return root


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.filterwarnings("error::UserWarning")
def test_adapters_come_and_go_without_a_trace(folders: Path) -> None:
    wanted = {name: logits(load_model(folders / "base", MODEL, folders / name)) for name in ("a", "b")}
    base = logits(load_model(folders / "base", MODEL))
    assert not torch.allclose(wanted["a"], wanted["b"]) and not torch.allclose(wanted["a"], base)
    switch = AdapterSwitch(folders / "base", MODEL)
    for name in ("", "a", "b", "", "b", "a", "a"):
        model = switch.use(folders / name if name else None)
        assert not model.training
        assert torch.equal(logits(model), wanted.get(name, base)), name


def test_a_number_head_comes_and_goes_with_its_adapter(folders: Path) -> None:
    switch = AdapterSwitch(folders / "base", MODEL)
    hidden = torch.full((1, 64), 0.25)
    for name in ("head", "", "head", "a"):
        model = switch.use(folders / name if name else None)
        assert any(part.endswith(NAME) for part, _ in model.named_modules()) == (name == "head")
        if name == "head":
            assert read_head(model, hidden).item() == pytest.approx(torch.tensor(1.6).tanh().item())  # .1 x 64 x .25


def test_the_base_is_loaded_once_for_each_precision(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A QLoRA's adapter gets the base in 4 bits, on which it was trained."""
    loaded = []

    def load(folder: Path, model: Model, quantise: bool) -> Any:
        loaded.append(quantise)
        return load_model(folder, model)

    monkeypatch.setattr("stages.regression.adapter_switch.load_model", load)
    switch = AdapterSwitch(folders / "base", MODEL)
    assert loaded == []
    write_adapter_note(folders / "b", {"prompt_hash": "", "quantise": True})
    for name in ("", "a", "head", "b", "b", ""):
        switch.use(folders / name if name else None)
    assert loaded == [False, True, True, False]  # 4 bits on a CPU: once for each adapter


@pytest.mark.slow
def test_adapters_on_four_bits_come_and_go_without_a_trace(folders: Path) -> None:
    pytest.importorskip("bitsandbytes")
    for name in ("a", "head"):
        write_adapter_note(folders / name, {"prompt_hash": "", "quantise": True})
    wanted = logits(load_model(folders / "base", MODEL, folders / "a", quantise=True))
    assert not torch.allclose(wanted, logits(load_model(folders / "base", MODEL, folders / "a")))
    switch = AdapterSwitch(folders / "base", MODEL)
    for name in ("a", "head", "a", "", "a"):
        found = logits(switch.use(folders / name if name else None))
        assert name != "a" or torch.equal(found, wanted)
