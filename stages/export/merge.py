"""Base and adapter into merged shards, one weight at a time: memory holds a weight and its delta, never the model.

Merged weight = W + alpha / r * B @ A, computed in float32 and rounded once to the base's dtype: the same bytes as
`stages.training.merging.merge_in_place`, which needs the whole model.

An adapter of QLoRA was trained on W rounded to 4 bits and back. `base="dequantised"` merges into that; the weights
are then further from the original, but the adapter corrects the very errors they have.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.export.adapters import Adapter
from stages.export.tensor_files import Weights, write_shards

BASES = ("stored", "dequantised")
CARRIED = (  # beside the weights, what a loader asks for
    *("config.json", "generation_config.json", "chat_template.jinja", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt"),
)


def merge_weights(weights: Weights, adapter: Adapter | None, target: Path, max_shard_bytes: int, base: str) -> None:
    """Writes merged shards to the folder `target`; without an adapter, the base's own weights in new shards.

    Raises DataError for a merged weight that is not finite.
    """

    def merged(name: str) -> Any:
        tensor = weights.read(name)
        if base == "dequantised" and is_quantised_linear(name, tensor):
            tensor = dequantised(tensor)
        delta = adapter.delta(name) if adapter else None
        return tensor if delta is None else _added(name, tensor, delta)

    write_shards(target, weights.entries.values(), merged, max_shard_bytes)


def _added(name: str, tensor: Any, delta: Any) -> Any:
    total = delta.add_(tensor).to(tensor.dtype)  # in place: one float32 copy of the weight, not two
    if not total.isfinite().all():
        raise DataError(f"{name}: the merged weight holds values that are not finite; the adapter is broken")
    return total


def is_quantised_linear(name: str, tensor: Any) -> bool:
    """Whether loading in 4 bits would quantise it: the linear layers of the blocks; never embeddings or the head."""
    return name.startswith("model.layers.") and tensor.ndim == 2


def dequantised(weight: Any) -> Any:
    """The weight as QLoRA's forward pass sees it: nf4 in blocks of 64 with double quantisation, and back."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    return dequantize_4bit(packed, state).to(weight.dtype)


def require_space(folder: Path, weights: Weights, num_gguf_files: int) -> None:
    """Raises DataError where the disk is too small: better now than in the middle of a shard."""
    size = sum(entry.num_bytes for entry in weights.entries.values())
    needed = size * (1 + num_gguf_files)  # no GGUF file is larger than the weights, but for F32 of 16 bits
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(f"{folder.parent}: the export needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free")


def carry_over(folders: Sequence[Path], target: Path, patterns: Sequence[str]) -> list[str]:
    """Copies the files that match, each from the first folder that has it; their names, sorted."""
    names = set()
    for folder in folders:
        for pattern in patterns:
            for file in folder.glob(pattern):
                if file.is_file() and file.name not in names:
                    shutil.copyfile(file, target / file.name)
                    names.add(file.name)
    return sorted(names)
