"""Random models of every architecture that can be exported, with a byte-level tokenizer, and adapters on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PROMPT, byte_tokenizer, write_base_manifest

from stages.core.jsonl import write_jsonl
from stages.core.schema import Model, Prompt
from stages.core.workspace import Workspace
from stages.generation.loading import write_adapter_note
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer
from stages.training.lora import weights_sha256

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and wait for it where the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def merging_tokenizer() -> Any:
    """One token a byte, and three merges."""
    return byte_tokenizer(TEMPLATE, merges=[("t", "h"), ("th", "e"), ("Ġ", "the")])


@pytest.fixture
def build_model(tmp_path: Path, merging_tokenizer: Any) -> Callable[..., Path]:
    """build(class name, name=..., dtype=..., **config) -> a model folder with weights large enough to differ."""

    def build(
        architecture: str = "LlamaForCausalLM", name: str = "base", dtype: str = "float32", **changes: Any
    ) -> Path:
        import torch
        import transformers

        config_class = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
        ids = {key: getattr(merging_tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        torch.manual_seed(0)
        config = config_class(
            **(SIZES | ids | {"vocab_size": len(merging_tokenizer), "initializer_range": 0.2} | changes)
        )
        model = getattr(transformers, architecture)(config).to(getattr(torch, dtype))
        folder = tmp_path / name
        model.save_pretrained(folder)
        merging_tokenizer.save_pretrained(folder)
        return folder

    return build


@pytest.fixture
def build_adapter(tmp_path: Path, merging_tokenizer: Any, prompt_config: Prompt) -> Callable[..., Path]:
    """build(base folder, name=..., quantise=..., **LoraConfig) -> an adapter that says something, with its note."""

    def build(base: Path, name: str = "adapter", quantise: bool = False, std: float = 0.1, **changes: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(1)
        settings: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"]} | changes
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings)
        )
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=std)
        model.save_pretrained(tmp_path / name)
        note = {
            "base_sha256": weights_sha256(base),
            "prompt_hash": Renderer(prompt_config, merging_tokenizer).hash,
            "quantise": quantise,
            "seed": 13,
        }
        write_adapter_note(tmp_path / name, note | {"lora": {"r": 4, "alpha": 12}, "data_sha256": {"train.jsonl": "d"}})
        return tmp_path / name

    return build


@pytest.fixture(scope="session")
def model_config() -> Model:
    return Model(name="tiny", kind="build", max_context_tokens=512)


@pytest.fixture(scope="session")
def prompt_config() -> Prompt:
    return PROMPT


@pytest.fixture
def repository(tmp_path: Path, build_model: Callable[..., Path], build_adapter: Callable[..., Path]) -> Workspace:
    """A base model with its manifest, an adapter on it, examples, and metrics for the card."""
    base = build_model(name="models/base/tiny")
    write_base_manifest(base)
    (base / "LICENSE").write_text("Do as you like.")
    build_adapter(base, "models/demo/rag_lora")
    examples = [
        Example(f"qa-{n}", "qa", f"Who ground {n} sacks?", "Bako.", ["Bako ground it."] * (n % 2), [], "none", str(n))
        for n in range(6)
    ]
    write_jsonl(tmp_path / "data/demo/rag/validation.jsonl", [example.to_row() for example in examples])
    data = tmp_path / "reports/demo/build_rag_data/metrics.json"
    data.parent.mkdir(parents=True)
    data.write_text(json.dumps({"splits": {"train": {"num_rows": 1234}}, "splits_sha256": "5" * 64}))
    estimate = {"value": 0.913, "low": 0.708, "high": 1.0, "n": 92}
    answers = {"tuned_docs": {"exact_match": estimate, "loss": estimate | {"low": None}}}
    (tmp_path / "reports/demo/metrics.json").write_text(json.dumps({"answers": answers}))
    return Workspace(tmp_path, tmp_path)
