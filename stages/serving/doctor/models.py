"""Checks of the configured base model and embedder: are they here, what do they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from stages.core.errors import DataError
from stages.core.schema import Embedder, Lora, Model, Training
from stages.core.workspace import Workspace
from stages.generation.model_files import model_files
from stages.retrieval.embedder_files import resolve_embedder
from stages.serving import machine
from stages.serving.doctor import hub_cache
from stages.serving.doctor.check import Check, Status, count_text, size_text
from stages.serving.doctor.sizing import BYTES_PER_VALUE, ModelSize, num_parameters_in_name, read_model_size

SMALLER_MODEL = "choose a smaller model, or a machine with more memory"
SMALLER_BATCH = f"{SMALLER_MODEL}; or try a shorter training.max_length, a smaller batch_size, activation_checkpointing"


def model_folder(model: Model, workspace: Workspace) -> Path | None:
    """Where the weights of the configured base lie; None where they are not there yet."""
    if model.kind == "hub":
        return hub_cache.cached_snapshot(model.path, model.revision)
    place = model.path if model.kind == "local" else f"models/base/{model.name}"
    folder = workspace.inputs / Path(place).expanduser()
    return folder if (folder / "config.json").exists() else None


def model_size(model: Model, workspace: Workspace) -> ModelSize | None:
    """None where the weights are not there, or are no safetensors."""
    folder = model_folder(model, workspace)
    try:
        return read_model_size(folder) if folder is not None else None
    except DataError:  # model_check says so
        return None


def model_check(model: Model, workspace: Workspace) -> Check:
    """Whether the base model's weights are here; one that is built here may come later."""
    folder = model_folder(model, workspace)
    if folder is not None:
        try:
            model_files(folder)
            num_parameters = read_model_size(folder).num_parameters
        except DataError as error:
            return Check(
                "models",
                "base model",
                "problem",
                str(error),
                "complete it: config.json, *.safetensors, tokenizer files",
            )
        return Check("models", "base model", "ok", f"{model.name}: {count_text(num_parameters)} parameters in {folder}")
    if model.kind == "build":
        return Check("models", "base model", "ok", f"{model.name}: not built yet", "dvc repro builds it (minutes)")
    if model.kind == "local":
        fix = "put it there, or choose another: python -m stages.compose model=local model.path=..."
        return Check("models", "base model", "problem", f"{model.path}: no such model", fix)
    found = f"{model.path} is not in the local cache{_download_size(model.path, model.dtype)}"
    fix = f"{hub_cache.download_command(model.path, model.revision)} (dvc repro does it where there is a network)"
    return Check("models", "base model", "problem", found, fix)


def _download_size(path: str, dtype: str) -> str:
    num_parameters = num_parameters_in_name(path)
    return f" (about {size_text(num_parameters * BYTES_PER_VALUE[dtype])} by its name)" if num_parameters else ""


def embedder_check(embedder: Embedder) -> Check:
    """Whether the embedder's files are here, and are the pinned ones."""
    try:
        folder = resolve_embedder(embedder)
    except DataError as error:
        found, _, fix = str(error).partition("; ")
        return Check("models", "embedder", "problem", found, fix or "python -m stages.compose embedder=minilm")
    return Check("models", "embedder", "ok", f"{embedder.name}: {folder}")


def need_checks(
    model: Model, size: ModelSize | None, training: Mapping[str, tuple[Lora, Training]], workspace: Workspace
) -> Iterator[Check]:
    """Estimates of what building, answering and training take, against what there is. training: by stage.

    Weights that do not fit are a problem; training that might not fit is a note, as its estimate is rougher.
    """
    named = num_parameters_in_name(model.path)
    if size is None and named is None:
        yield Check("models", "needs", "ok", "known once the base model is there")
        return
    weights = size.weights_bytes(model.dtype) if size else (named or 0) * BYTES_PER_VALUE[model.dtype]
    copies, what = (1, "the merged model") if size else (2, "the download and the merged model")
    free = machine.free_disk_bytes(workspace.outputs)
    yield _need("to build", weights * copies, free, f"disk for {what}", "problem", "free some space")
    gpus = machine.gpus()
    have, where = (gpus[0].total_bytes, "GPU") if gpus else (machine.memory().total_bytes, "main")
    yield _need("to answer", weights, have, f"{where} memory for weights", "problem", SMALLER_MODEL)
    for stage, (lora, settings) in training.items() if size else ():
        needed = size.lora_training_bytes(model.dtype, lora, settings) if size else 0
        what = f"{where} memory for weights, LoRA, Adam and activations"
        yield _need(f"to {stage}", needed, have, what, "note", SMALLER_BATCH)


def _need(name: str, needed: int, have: int, what: str, status: Status, fix: str) -> Check:
    found = f"about {size_text(needed)} of {size_text(have)} {what}"
    return Check("models", name, "ok", found) if needed <= have else Check("models", name, status, found, fix)
