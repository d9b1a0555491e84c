"""Checks of the configured base model and embedder: are they here, what do they need."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.serving import machine
from stages.serving.doctor import hub_cache
from stages.serving.doctor.check import Check, Params, count_text, size_text
from stages.serving.doctor.sizing import BYTES_PER_VALUE, ModelSize, num_parameters_in_name, read_model_size


def model_folder(model: Params, workspace: Workspace) -> Path | None:
    """Where the weights of the configured base lie; None where they are not there yet."""
    if model["kind"] == "hub":
        return hub_cache.cached_snapshot(model["path"], model["revision"])
    place = model["path"] if model["kind"] == "local" else f"models/base/{model['name']}"
    folder = workspace.inputs / Path(place).expanduser()
    return folder if (folder / "config.json").exists() else None


def model_size(model: Params, workspace: Workspace) -> ModelSize | None:
    """None where the weights are not there, or are no safetensors."""
    folder = model_folder(model, workspace)
    try:
        return read_model_size(folder) if folder is not None else None
    except DataError:  # model_check says so
        return None


def model_check(model: Params, workspace: Workspace) -> Check:
    folder = model_folder(model, workspace)
    if folder is not None:
        try:
            num_parameters = read_model_size(folder).num_parameters
        except DataError as error:
            return Check("models", "base model", "problem", str(error), "save the model as safetensors")
        return Check("models", "base model", "ok", f"{model['name']}: {count_text(num_parameters)} parameters in {folder}")
    if model["kind"] == "build":
        return Check("models", "base model", "ok", f"{model['name']}: not built yet", "dvc repro builds it (minutes)")
    if model["kind"] == "local":
        fix = "put it there, or choose another: python -m stages.compose model=local model.path=..."
        return Check("models", "base model", "problem", f"{model['path']}: no such model", fix)
    found = f"{model['path']} is not in the local cache{_download_size(model['path'], model['dtype'])}"
    fix = hub_cache.download_command(model["path"], model["revision"])
    return Check("models", "base model", "problem", found, fix)


def _download_size(path: str, dtype: str) -> str:
    num_parameters = num_parameters_in_name(path)
    return f" (about {size_text(num_parameters * BYTES_PER_VALUE[dtype])} by its name)" if num_parameters else ""


def embedder_check(embedder: Params) -> Check:
    name, package, path = embedder["name"], embedder["package"], embedder["path"]
    if package:
        if importlib.util.find_spec(package):
            return Check("models", "embedder", "ok", f"{name}: in the package {package}")
        fix = f"pip install {package.replace('_', '-')}, or choose another: python -m stages.compose embedder=..."
        return Check("models", "embedder", "problem", f"{name}: the package {package} is not installed", fix)
    folder = Path(path).expanduser()
    if folder.is_dir() or hub_cache.cached_snapshot(path, embedder["revision"]):
        return Check("models", "embedder", "ok", f"{name}: {path}")
    fix = f"{hub_cache.download_command(path, embedder['revision'])}, or python -m stages.compose embedder=minilm"
    return Check("models", "embedder", "problem", f"{name}: {path} is not in the local cache", fix)


def memory_checks(params: Params, size: ModelSize | None) -> Iterator[Check]:
    """Estimates of what answering and training take, against what the device has."""
    model = params["chat"]["model"]
    named = num_parameters_in_name(model["path"])
    if size is None and named is None:
        yield Check("models", "memory", "ok", "its needs are known once the base model is there")
        return
    weights = size.weights_bytes(model["dtype"]) if size else (named or 0) * BYTES_PER_VALUE[model["dtype"]]
    yield _memory_check("to answer", weights, "weights")
    for stage in ("train_book_lora", "train_rag_lora") if size else ():
        section = params[stage]
        needed = size.lora_training_bytes(model["dtype"], section["lora"], section["training"]) if size else 0
        yield _memory_check(f"to {stage}", needed, "weights, LoRA, Adam, activations")


def _memory_check(name: str, needed: int, what: str) -> Check:
    found = machine.gpus()
    have, place = (found[0].total_bytes, "GPU") if found else (machine.memory().total_bytes, "main")
    text = f"about {size_text(needed)} ({what}) of {size_text(have)} {place} memory"
    if needed <= have:
        return Check("models", name, "ok", text)
    fix = "choose a smaller model, or a machine with more memory; a shorter max_length and smaller batches help training"
    return Check("models", name, "note", text, fix)
