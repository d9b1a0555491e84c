"""Loading models and tokenizers: base models through their manifest, adapters with their prompt's hash.

models/base/<name>/manifest.json says what a base model is, wherever its weights lie:

    {"name": "tiny", "kind": "build", "path": ".", "revision": "", "files": {"model.safetensors": "<sha256>", ...}}

An adapter folder (PEFT format) carries adapter.json beside it: what it was trained on and with which prompt.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import known_hashes
from stages.core.schema import Model
from stages.core.workspace import Workspace

MANIFEST = "manifest.json"
ADAPTER_NOTE = "adapter.json"


def base_folder(model: Model) -> str:
    """Where the manifest of a base model lies, relative to the workspace."""
    return f"models/base/{model.name}"


def resolve_base(workspace: Workspace, model: Model) -> Path:
    """The verified folder with a base model's weights.

    Raises DataError where a file is missing or is not the one that the manifest names. Hashes of files that
    have not changed since they were last verified are not computed again.
    """
    folder = workspace.read(base_folder(model))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    weights: Path = (folder / manifest["path"]).resolve()
    with known_hashes(workspace) as hashes:
        for name, expected in manifest["files"].items():
            path = weights / name
            if not path.exists():
                raise DataError(f"{path}: named in {folder / MANIFEST} but not there; run `dvc repro base_model`")
            if hashes.sha256(path) != expected:
                raise DataError(f"{path}: changed since {folder / MANIFEST} was written; run `dvc repro -f base_model`")
    return weights


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder; nothing is fetched and no remote code runs."""
    from transformers import AutoTokenizer

    quiet_transformers()
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_model(folder: Path, model: Model, adapter: Path | None = None, quantise: bool = False) -> Any:
    """A causal language model in eval mode, on the accelerator where there is one, with `adapter` if given.

    quantise: 4 bits a weight as in QLoRA (Dettmers et al., 2023: nf4, double quantisation), computing in model.dtype.
    Only safetensors are read. Gradients stay enabled only for what a trainer later unfreezes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, model.dtype),
        attn_implementation=model.attention,
        local_files_only=True,
        use_safetensors=True,
        device_map={"": device()} if device() != "cpu" or quantise else None,
        quantization_config=_four_bits(model) if quantise else None,
    )
    if adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, str(adapter), local_files_only=True)
    return loaded.eval()


def _four_bits(model: Model) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, model.dtype),
    )


def quiet_transformers() -> None:
    """Switches its bars and advice off: they are about loading, ours are about the work."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def device() -> str:
    """`cuda:<local rank>` where there is a GPU, else `cpu`."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def write_adapter_note(folder: Path, note: dict[str, Any]) -> None:
    """Writes adapter.json: at least `base_sha256` (of the weights trained on) and `prompt_hash` ("" for plain text)."""
    write_json(folder / ADAPTER_NOTE, note)


def check_adapter(folder: Path, prompt_hash: str) -> dict[str, Any]:
    """The adapter's note; DataError where the prompt that is about to be used is not the one it was trained with."""
    note: dict[str, Any] = json.loads((folder / ADAPTER_NOTE).read_text(encoding="utf-8"))
    if note["prompt_hash"] != prompt_hash:
        raise DataError(
            f"{folder}: trained with prompt {note['prompt_hash'][:12]}, but the prompt in use is {prompt_hash[:12]}; "
            "restore conf/prompt and the tokenizer's chat template, or train again"
        )
    return note
