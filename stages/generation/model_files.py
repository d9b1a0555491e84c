"""The files of a model that already exists: a local folder, or a commit of a hub model in the local cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.schema import Model

LOADED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # weights, configuration, tokenizer
LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")  # what a copy of the model has to carry


def model_files(folder: Path) -> list[str]:
    """Names of the files that loading a model may read, sorted.

    Raises DataError where there is no model, or none in safetensors: pickled weights can run code when loaded.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no model here (config.json is missing); set model.path to its folder")
    files = sorted({path.name for pattern in LOADED for path in folder.glob(pattern)})
    if not any(name.endswith(".safetensors") for name in files):
        has_pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        raise DataError(
            f"{folder}: no weights in safetensors"
            + ("; .bin and .pt files can run code and are refused, convert them to safetensors" if has_pickles else "")
        )
    if not any(name.startswith("tokenizer") for name in files):
        raise DataError(f"{folder}: no tokenizer (tokenizer.json, tokenizer.model or tokenizer_config.json)")
    return files


def count_parameters(folder: Path, files: list[str]) -> int:
    """Sums the sizes in the safetensors' headers; no weight is read."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for name in files:
        if name.endswith(".safetensors"):
            with safe_open(folder / name, framework="numpy") as weights:
                total += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    return total


def hub_snapshot(model: Model) -> Path:
    """The folder of a hub model at its pinned revision: from the local cache, else downloaded.

    Raises DataError with the command that downloads it where neither works.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted: dict[str, Any] = {"revision": model.revision, "allow_patterns": [*LOADED, *LEGAL]}
    try:
        return Path(snapshot_download(model.path, local_files_only=True, **wanted))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(model.path, **wanted))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise DataError(
            f"{model.path} at {model.revision} is not in the local cache and could not be downloaded "
            f"({type(error).__name__}). Where there is a network (and, for gated models, a login), run\n"
            f"  hf download {model.path} --revision {model.revision}\n"
            "or choose another model, for example: python -m stages.compose model=tiny"
        ) from error
