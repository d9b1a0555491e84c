"""The base model: pre-trained here (kind build), a local folder (local), or a pinned commit of a hub model (hub).

reads   nothing but its configuration; local and hub: the model's files
writes  models/base/<model>/manifest.json, with the weights and the tokenizer beside it for kind build
        reports/base/<model>/{metrics.json,curve.csv}

    python -m stages.base_model
    python -m stages.base_model model=qwen2_5_0_5b

A manifest says where the weights lie and what they are; later stages verify it (stages.generation.loading):

    {"name": "tiny", "kind": "build", "path": ".", "revision": "", "files": {"model.safetensors": "<sha256>", ...}}
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core import schema
from stages.core.atomic import new_folder, write_json, write_text
from stages.core.errors import ConfigError
from stages.core.fingerprint import fingerprint, sha256_file, sha256_files
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder
from stages.generation.model_files import count_parameters, hub_snapshot, model_files
from stages.training.recipe import Recipe

CURVE_COLUMNS = ("step", "train_loss", "learning_rate", "tokens_per_s")


@dataclass
class Config:
    """`recipe` is for kind build only."""

    model: schema.Model = MISSING
    seed: int = MISSING
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if (self.model.kind == "build") != (self.recipe is not None):
            raise ValueError(f"recipe: a {self.model.kind} model {'needs one' if self.recipe is None else 'has none'}")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Builds or verifies the model; returns the metrics."""
    if config.recipe is not None:
        metrics, curve = _build(config, config.recipe, workspace)
    else:
        metrics, curve = _refer(config.model, workspace), []
    report = f"reports/base/{config.model.name}"
    write_json(workspace.write(f"{report}/metrics.json"), metrics)
    lines = [",".join(CURVE_COLUMNS), *(",".join(format(row[c], ".6g") for c in CURVE_COLUMNS) for row in curve)]
    write_text(workspace.write(f"{report}/curve.csv"), "\n".join(lines) + "\n")
    return metrics


def _refer(model: schema.Model, workspace: Workspace) -> dict[str, Any]:
    """A manifest of weights that stay where they are."""
    folder = hub_snapshot(model) if model.kind == "hub" else (workspace.inputs / model.path).resolve()
    revision = folder.name if model.kind == "hub" else ""  # its snapshot's folder is called by the commit
    if revision and revision != model.revision:
        print(
            f"base_model: warning: {model.path} is not pinned: model.revision {model.revision} is now the commit "
            f"{revision}; put that into conf/model, or another day brings other weights",
            file=sys.stderr,
        )
    files = model_files(folder)
    hashes = {name: sha256_file(folder / name) for name in files}
    with new_folder(workspace.write(base_folder(model))) as new:
        _write_manifest(new, model, str(folder), revision, hashes)
    num_bytes = sum((folder / name).stat().st_size for name in files)
    return {"num_parameters": count_parameters(folder, files), "num_files": len(files), "size_bytes": num_bytes}


def _write_manifest(folder: Path, model: schema.Model, path: str, revision: str, hashes: dict[str, str]) -> None:
    manifest = {"name": model.name, "kind": model.kind, "path": path, "revision": revision, "files": hashes}
    write_json(folder / MANIFEST, manifest)


def _build(config: Config, recipe: Recipe, workspace: Workspace) -> tuple[dict[str, Any], list[dict[str, float]]]:
    from stages.training.base_evaluation import evaluate_base
    from stages.training.pretraining import SOURCES, pretrain
    from stages.training.tiny_llama import to_transformers
    from stages.training.tiny_tokenizer import save_new_tokenizer

    if config.model.max_context_tokens != recipe.max_positions:
        raise ConfigError("base_model.recipe.max_positions: differs from model.max_context_tokens")
    # The code belongs to the key: a checkpoint of other code would end in other weights.
    checkpoints = workspace.cache("checkpoints", "base_model", fingerprint(recipe, config.seed, *SOURCES))
    tokenizer = save_new_tokenizer(checkpoints / "tokenizer", recipe.vocabulary, recipe.max_positions, config.seed)
    weights, course = pretrain(recipe, checkpoints / "tokenizer", config.seed, checkpoints)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = to_transformers(weights, recipe.shape, special)
    with new_folder(workspace.write(base_folder(config.model))) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for path in new.iterdir():
            path.chmod(0o644)  # transformers writes weights for the owner alone
        _write_manifest(new, config.model, ".", "", sha256_files(new))
    metrics = {
        "num_parameters": recipe.shape.num_parameters,
        "num_tokens": course.num_tokens,
        **evaluate_base(model, tokenizer, config.seed),
    }
    shutil.rmtree(checkpoints)
    return metrics, course.curve


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
