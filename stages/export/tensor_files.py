"""Weights one tensor at a time: read from the safetensors files of a folder, written as shards.

    weights = Weights(folder)
    weights.entries["model.norm.weight"]      # Entry(name, file, "BF16", (4096,))
    write_shards(target, weights.entries.values(), weights.read, 5_000_000_000)

A shard is written as its tensors come, not gathered first, so that memory holds one tensor and not one shard; the
library's own writer wants all of them at once and then copies them. Format: 8 bytes little-endian length of a JSON
header, the header (padded with spaces to 8 bytes), the bytes of the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.progress import track

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # that a model computes in
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Entry:
    """A tensor in a file. dtype: as safetensors spells it, such as BF16."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class Weights:
    """The tensors of a model folder, by name in natural order; nothing is read until it is asked for.

    Raises DataError for a folder without weights, a broken file, a dtype that is no plain number, or a name in two
    files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found: dict[str, Entry] = {}
        for path in sorted(folder.glob("*.safetensors")):
            for entry in _entries(path):
                if entry.name in found:
                    raise DataError(f"{folder}: {entry.name} is in {found[entry.name].file.name} and in {path.name}")
                found[entry.name] = entry
        if not found:
            raise DataError(f"{folder}: no weights in safetensors")
        self.entries = {name: found[name] for name in sorted(found, key=_natural)}

    def read(self, name: str) -> Any:
        """The tensor; its file is open no longer than the reading takes, so that no mapping of it stays in memory."""
        from safetensors import safe_open

        with safe_open(self.entries[name].file, framework="pt") as file:
            return file.get_tensor(name).clone()

    def model_dtype(self) -> str:
        """The dtype of the largest tensor, as torch spells it: what the model is stored in."""
        largest = max(self.entries.values(), key=lambda entry: entry.num_bytes)
        if largest.dtype not in DTYPES:
            raise DataError(f"{largest.file}: {largest.name} is {largest.dtype}; expected one of {', '.join(DTYPES)}")
        return DTYPES[largest.dtype]


def write_shards(
    folder: Path, entries: Iterable[Entry], tensor_of: Callable[[str], Any], max_shard_bytes: int
) -> list[Path]:
    """Writes model.safetensors, or shards of at most `max_shard_bytes` and their index; the files, in order.

    tensor_of: called once for each name, with a shape and dtype equal to the entry's (DataError otherwise). A tensor
    larger than a shard gets a shard of its own.
    """
    shards = plan_shards(list(entries), max_shard_bytes)
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else ["model.safetensors"]
    for name, shard in track(list(zip(names, shards, strict=True)), "write shards"):
        write_safetensors(folder / name, shard, tensor_of)
    if len(shards) > 1:
        where = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        size = sum(entry.num_bytes for shard in shards for entry in shard)
        index = {"metadata": {"total_size": size}, "weight_map": {key: where[key] for key in sorted(where)}}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def plan_shards(entries: Sequence[Entry], max_shard_bytes: int) -> list[list[Entry]]:
    """Consecutive entries, as many to a shard as fit."""
    shards: list[list[Entry]] = []
    filled = max_shard_bytes
    for entry in entries:
        if filled + entry.num_bytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += entry.num_bytes
    return shards


def write_safetensors(path: Path, entries: Sequence[Entry], tensor_of: Callable[[str], Any]) -> None:
    """One file, tensor by tensor. Wide types come first, so that every tensor lies at a multiple of its item size."""
    ordered = sorted(entries, key=lambda entry: -ITEM_BYTES[entry.dtype])
    with open(path, "wb") as file:
        file.write(_header(ordered))
        for entry in ordered:
            file.write(_bytes_of(tensor_of(entry.name), entry))
        file.flush()
        os.fsync(file.fileno())


def _header(entries: Sequence[Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.num_bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Any, entry: Entry) -> memoryview:
    import torch

    if tuple(tensor.shape) != entry.shape or tensor.dtype.itemsize != ITEM_BYTES[entry.dtype]:
        raise DataError(f"{entry.name}: {tensor.dtype} {tuple(tensor.shape)}, planned: {entry.dtype} {entry.shape}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _entries(path: Path) -> list[Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            entries = [Entry(n, path, s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()]
    except SafetensorError as error:
        raise DataError(f"{path}: not a whole safetensors file ({error}); build or download it again") from error
    if odd := sorted({entry.dtype for entry in entries} - set(ITEM_BYTES)):
        raise DataError(f"{path}: tensors of type {', '.join(odd)}; export starts from weights that are not quantised")
    return entries


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
