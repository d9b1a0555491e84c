"""LoRA adapters: put on a model, saved with the same bytes every time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.errors import ConfigError
from stages.core.fingerprint import fingerprint, sha256_files
from stages.core.schema import Lora

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
READABLE = 0o644  # safetensors' own files are 0600: unreadable for the server's user
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


def versions() -> dict[str, str]:
    """The libraries that decide about the weights that come out of a training."""
    return {name: version(name) for name in LIBRARIES}


def weights_sha256(folder: Path) -> str:
    """One hash over all safetensors files of a model or adapter folder, names included."""
    return fingerprint(sha256_files(folder, "*.safetensors"))


def attach_lora(model: Any, lora: Lora, also_trained: Sequence[str] = ()) -> Any:
    """The model with fresh adapters, frozen but for them; adapters are float32 whatever the model's dtype.

    also_trained: modules that are trained whole, and saved with the adapter.

    Draws from torch's generator: seed before. Raises ConfigError for a module name that the model does not have
    (peft only objects when none of the names fits, and would train the rest).
    """
    from peft import LoraConfig, get_peft_model

    endings = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing := sorted(set(lora.modules) - endings):
        raise ConfigError(f"lora.modules: {', '.join(missing)} not in this model; it has {', '.join(_linears(model))}")
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
        modules_to_save=list(also_trained) or None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _linears(model: Any) -> list[str]:
    import torch

    return sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)})


def num_trainable(model: Any) -> int:
    """Parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def load_weights(model: Any, folder: Path) -> None:
    """Puts the adapter weights of `folder` into the model's adapter."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(str(folder / ADAPTER_WEIGHTS)))


def copy_adapter(checkpoint: Path, folder: Path) -> None:
    """The adapter of a checkpoint into `folder`, in PEFT's format, with nothing in it that differs between clones.

    PEFT writes the base model's absolute path, and the modules in the order of a set.
    """
    shutil.copyfile(checkpoint / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_WEIGHTS).chmod(READABLE)
    config = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / ADAPTER_CONFIG, config)
