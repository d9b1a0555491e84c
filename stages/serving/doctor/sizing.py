"""How much memory a model needs, read from its files without loading it. Sizes in bytes; estimates, not promises."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.schema import Lora, Training

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAM_BYTES_PER_PARAMETER = 16  # value, gradient and two moments, all float32


@dataclass(frozen=True)
class ModelSize:
    """shapes: of every tensor, by its name; config: the model's config.json."""

    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any]

    @property
    def num_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    def weights_bytes(self, dtype: str) -> int:
        return self.num_parameters * BYTES_PER_VALUE[dtype]

    def num_lora_parameters(self, r: int, modules: list[str]) -> int:
        """A (r x in) and B (out x r) for each adapted matrix (Hu et al., 2021, arXiv:2106.09685)."""
        ends = tuple(f".{module}.weight" for module in modules)
        return sum(r * sum(shape) for name, shape in self.shapes.items() if name.endswith(ends) and len(shape) == 2)

    def lora_training_bytes(self, dtype: str, lora: Lora, training: Training) -> int:
        """Frozen weights + LoRA with Adam + activations of one micro-batch + its logits.

        A decoder layer keeps about 8 H + 4 I values a token for the backward pass (H hidden, I intermediate size); with
        activation checkpointing each layer keeps its input (H) and one layer is recomputed at a time. Logits over
        V words stand in memory in the model's dtype, in float32, and as a gradient.
        """
        hidden, layers = int(self.config["hidden_size"]), int(self.config["num_hidden_layers"])
        intermediate = int(self.config.get("intermediate_size", 4 * hidden))
        vocabulary = int(self.config["vocab_size"])
        width = BYTES_PER_VALUE["bfloat16" if training.bf16 else dtype]
        num_tokens = training.batch_size * training.max_length
        layer = (8 * hidden + 4 * intermediate) * width
        kept = hidden * layers * width + layer if training.activation_checkpointing else layer * layers
        logits = vocabulary * (width + 8)
        adapter = self.num_lora_parameters(lora.r, lora.modules) * ADAM_BYTES_PER_PARAMETER
        return self.weights_bytes(dtype) + adapter + num_tokens * (kept + logits)


def read_model_size(folder: Path) -> ModelSize:
    """From config.json and the headers of the safetensors files. Raises DataError where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").exists():
        raise DataError(f"{folder}: no config.json with *.safetensors; only safetensors are read")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes.update(_shapes(path))
    return ModelSize(shapes, json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The header of a safetensors file: its length as uint64, then JSON."""
    with open(path, "rb") as file:
        start = file.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 0 < length < path.stat().st_size:
            raise DataError(f"{path}: not a whole safetensors file; fetch it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise DataError(f"{path}: not a whole safetensors file; fetch it again") from error
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def num_parameters_in_name(name: str) -> int | None:
    """8_000_000_000 for meta-llama/Llama-3.1-8B-Instruct; None where a name does not tell."""
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)B(?![a-z0-9])", name, re.IGNORECASE)
    return int(float(match[1]) * 10**9) if match else None
