"""The architectures that can be exported; any other is refused by its name.

A new one is a row here and a golden test: what llama.cpp calls it, whether its query and key rows are stored in
another order there, and how much of its configuration a GGUF file can say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError


@dataclass(frozen=True)
class Architecture:
    """gguf: its name in a GGUF file (`general.architecture`).

    rotates_neighbours: llama.cpp turns dimensions 2i and 2i + 1 together where transformers turns i and i + d / 2, so
    the rows of query and key are stored in another order.
    """

    gguf: str
    rotates_neighbours: bool = False


# By the class in config.json, not by model_type: a classifier on a Llama body is no language model.
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", rotates_neighbours=True),
    "MistralForCausalLM": Architecture("llama", rotates_neighbours=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    "Phi3ForCausalLM": Architecture("phi3"),
}


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises DataError where it is missing or no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; an export starts from a whole model folder") from error
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected a JSON object")
    return config


def architecture_of(folder: Path) -> Architecture:
    """The row of the table for a model folder.

    Raises DataError naming an architecture that is not in it, or where the weights are stored in quantised form.
    """
    config = read_config(folder)
    names = config.get("architectures") or ["none named"]
    if names[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise DataError(f"{folder / 'config.json'}: architecture {names[0]} cannot be exported; only {known} can")
    if config.get("quantization_config"):
        raise DataError(f"{folder / 'config.json'}: the weights are quantised; export starts from the 16-bit model")
    return ARCHITECTURES[names[0]]
