"""A LoRA adapter of any track, checked against the base that it is about to be merged into.

    adapter = read_adapter(Path("models/demo/rag_lora"), weights_sha256(base), weights.entries)
    adapter.delta("model.layers.0.self_attn.q_proj.weight")     # alpha / r * B @ A in float32, or None

Format: PEFT's (adapter_config.json, adapter_model.safetensors), with the adapter.json of ours that names its base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.export.tensor_files import Entry
from stages.generation.loading import ADAPTER_NOTE
from stages.training.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, weights_sha256

PREFIX = "base_model.model."
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
MERGE_NOTE = "merge.json"  # of merge_book: what a merged model was made from
VOCABULARY = ("embed_tokens", "lm_head")
# Settings of PEFT that change what the matrices mean; only their defaults are merged.
PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "use_dora": (False, None), "fan_in_fan_out": (False, None)}
EMPTY = ("rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices", "target_parameters")


@dataclass(frozen=True)
class Adapter:
    """weights: name of the base's weight -> its A [r, in] and B [out, r]. note: the content of adapter.json."""

    folder: Path
    scaling: float
    weights: dict[str, tuple[Any, Any]]
    note: dict[str, Any]

    @property
    def quantised(self) -> bool:
        """Whether it was trained on a base in 4 bits (QLoRA)."""
        return bool(self.note.get("quantise"))

    def delta(self, name: str) -> Any:
        """What is added to this weight, float32 [out, in]; None where the adapter leaves it alone."""
        if name not in self.weights:
            return None
        a, b = self.weights[name]
        return (b.float() @ a.float()).mul_(self.scaling)  # in place: one float32 matrix, not two


def read_note(folder: Path) -> dict[str, Any]:
    """adapter.json. Raises DataError where it is missing: then nothing says which base the adapter is for."""
    try:
        note: dict[str, Any] = json.loads((folder / ADAPTER_NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: {ADAPTER_NOTE} is missing, so nothing says which base it is for") from error
    return note


def check_base(folder: Path, base_sha256: str) -> dict[str, Any]:
    """The adapter's note. Raises DataError where it was trained on other weights than those with this fingerprint."""
    note = read_note(folder)
    if note.get("base_sha256") != base_sha256:
        raise DataError(
            f"{folder}: an adapter for another base: trained on weights {str(note.get('base_sha256'))[:12]}, those of "
            f"the base are {base_sha256[:12]}; name the base it was trained on (export_model.base), or train it again"
        )
    return note


def check_chain(merged: Path, origin: Path) -> dict[str, Any]:
    """The merge.json of a model that was itself merged; {} where it was not.

    Raises DataError where that was from other weights than those of `origin`, the base model of now.
    """
    path = merged / MERGE_NOTE
    if not path.is_file():
        return {}
    note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = weights_sha256(origin)
    if note["base_sha256"] != found:
        raise DataError(
            f"{path}: merged from weights {note['base_sha256'][:12]}, the base model {origin} has {found[:12]}; "
            "run `dvc repro merge_book`, or set model to the one it was made from"
        )
    return note


def read_adapter(folder: Path, base_sha256: str, entries: Mapping[str, Entry]) -> Adapter:
    """The adapter, every matrix of it matched with a weight of the base.

    Raises DataError for another base, for settings that a plain merge gets wrong, for modules that were trained whole
    (a vocabulary resized by training among them), and for matrices that fit nowhere.
    """
    note = check_base(folder, base_sha256)
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    _check_plain(folder, config)
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    return Adapter(folder, scaling, _pairs(folder, entries), note)


def _check_plain(folder: Path, config: Mapping[str, Any]) -> None:
    for key, allowed in PLAIN.items():
        if config.get(key) not in allowed:
            raise DataError(f"{folder / ADAPTER_CONFIG}: {key} is {config.get(key)!r}; only plain LoRA is merged")
    for key in EMPTY:
        if config.get(key):
            raise DataError(f"{folder / ADAPTER_CONFIG}: {key} is set; only plain LoRA is merged")


def _pairs(folder: Path, entries: Mapping[str, Entry]) -> dict[str, tuple[Any, Any]]:
    from safetensors.torch import load_file

    tensors = load_file(folder / ADAPTER_WEIGHTS)
    whole = sorted(key for key in tensors if not key.endswith((LORA_A, LORA_B)))
    if whole:
        raise DataError(_trained_whole(folder, whole, tensors, entries))
    pairs = {}
    for key in sorted(tensors):
        if not key.endswith(LORA_A):
            continue
        module = key.removesuffix(LORA_A)
        name = module.removeprefix(PREFIX) + ".weight"
        pairs[name] = tensors[key], tensors.get(module + LORA_B)
        _check_shapes(folder, name, pairs[name], entries)
    if 2 * len(pairs) != len(tensors):
        raise DataError(
            f"{folder / ADAPTER_WEIGHTS}: {len(tensors)} matrices do not make {len(pairs)} pairs of A and B"
        )
    return pairs


def _trained_whole(folder: Path, keys: list[str], tensors: Mapping[str, Any], entries: Mapping[str, Entry]) -> str:
    for key in keys:
        base = entries.get(key.removeprefix(PREFIX))
        if any(name in key for name in VOCABULARY) and (base is None or tuple(tensors[key].shape) != base.shape):
            rows = f"{tensors[key].shape[0]} rows" + (f", the base has {base.shape[0]}" if base else "")
            return (
                f"{folder}: the vocabulary was resized by training ({key}: {rows}); its tokenizer is not the base's. "
                "Train without new tokens, or make them part of the base first"
            )
    return f"{folder}: {', '.join(keys)} trained whole; only LoRA matrices are merged, export it as an adapter"


def _check_shapes(folder: Path, name: str, pair: tuple[Any, Any], entries: Mapping[str, Entry]) -> None:
    a, b = pair
    if name not in entries:
        raise DataError(f"{folder / ADAPTER_WEIGHTS}: {name} is no weight of the base")
    if b is None or (b.shape[0], a.shape[1]) != entries[name].shape or b.shape[1] != a.shape[0]:
        shapes = f"A {tuple(a.shape)}, B {tuple(b.shape) if b is not None else 'missing'}"
        raise DataError(f"{folder / ADAPTER_WEIGHTS}: {shapes} do not fit {name} {entries[name].shape}")
