"""Whether a model of the Hugging Face hub lies in the local cache. Nothing is ever fetched."""

from __future__ import annotations

import json
from pathlib import Path


def cached_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a complete snapshot with safetensors weights (all shards of its index), or None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if _is_complete(folder) else None


def download_command(repository: str, revision: str) -> str:
    """The command that fetches a model into the local cache."""
    pin = f" --revision {revision}" if revision else ""
    return f"hf download {repository}{pin}"


def _is_complete(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).exists() for shard in shards)
    return (folder / "model.safetensors").exists()
