"""The stage base_model: built here, a local folder, a hub id; and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from stages import base_model
from stages.core import schema
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_file, sha256_files
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer, resolve_base
from stages.training.recipe import Phase, Recipe, Shape
from stages.training.tiny_llama import initial_weights, to_transformers
from stages.training.tiny_tokenizer import save_new_tokenizer

ROOT = Path(__file__).parents[1]
TINY = schema.Model(name="tiny", kind="build", max_context_tokens=640)


def recipe() -> Recipe:
    phases = [Phase(4, 2, 96, 1, {"chat": 1.0})]
    return Recipe(700, 32, 48, 2, 4, 640, 1e-3, 2, 0.5, 2, 3, phases)


def local_model(folder: Path) -> Path:
    """A small model as somebody may have it on disk."""
    shape = Shape(700, 32, 48, 1, 2, 128)
    to_transformers(initial_weights(shape, torch.Generator().manual_seed(1)), shape, {}).save_pretrained(folder)
    save_new_tokenizer(folder / "new", 700, 128, seed=1)
    for path in (folder / "new").iterdir():
        path.rename(folder / path.name)
    return folder


@pytest.mark.slow
def test_built_here_it_is_whole_verified_and_the_same_twice(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name, tmp_path / name)
        metrics = base_model.run(base_model.Config(TINY, 13, recipe()), workspace)
        folder = resolve_base(workspace, TINY)
        hashes.append(sha256_files(folder))
        assert not list((tmp_path / name / ".cache" / "checkpoints" / "base_model").iterdir())
    assert hashes[0] == hashes[1]
    assert metrics["num_parameters"] == recipe().shape.num_parameters
    assert set(metrics["exact_match"]) == {"0_documents", "1_documents", "2_documents", "6_documents"}
    model, tokenizer = load_model(folder, TINY), load_tokenizer(folder)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert sum(p.numel() for p in model.parameters()) == metrics["num_parameters"]
    curve = (tmp_path / "two" / "reports/base/tiny/curve.csv").read_text(encoding="utf-8")
    assert curve.startswith("step,train_loss,learning_rate,tokens_per_s\n")


SCRIPT = """
import sys
from pathlib import Path
from stages import base_model
from stages.core import schema
from stages.core.workspace import Workspace
from stages.training.recipe import Phase, Recipe

if __name__ == "__main__":  # the processes of the training import this file again
    phases = [Phase(60, 2, 96, 1, {"chat": 1.0})]
    recipe = Recipe(700, 32, 48, 2, 4, 640, 1e-3, 2, 0.5, 2, 5, phases)
    model = schema.Model(name="tiny", kind="build", max_context_tokens=640)
    base_model.run(base_model.Config(model, 13, recipe), Workspace(Path(sys.argv[1]), Path(sys.argv[1])))
"""


def started(script: Path, root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(script), str(root)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
def test_killed_by_sigkill_it_leaves_nobody_behind_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text(SCRIPT, encoding="utf-8")
    assert started(script, tmp_path / "whole").wait(timeout=300) == 0

    killed = started(script, tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").glob(".cache/checkpoints/base_model/*/last/course.json")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    workers = descendants(killed)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert not (tmp_path / "killed/models/base/tiny").exists()

    assert started(script, tmp_path / "killed").wait(timeout=300) == 0
    assert sha256_files(tmp_path / "killed/models") == sha256_files(tmp_path / "whole/models")


def test_a_local_folder_gets_a_manifest_and_no_copy(tmp_path: Path) -> None:
    folder = local_model(tmp_path / "mine")
    model = schema.Model(name="mine", kind="local", path=str(folder), max_context_tokens=128)
    workspace = Workspace(tmp_path, tmp_path)
    metrics = base_model.run(base_model.Config(model, 13), workspace)
    manifest = json.loads((tmp_path / "models/base/mine/manifest.json").read_text(encoding="utf-8"))
    assert manifest["path"] == str(folder)
    assert manifest["files"]["model.safetensors"] == sha256_file(folder / "model.safetensors")
    assert [path.name for path in (tmp_path / "models/base/mine").iterdir()] == ["manifest.json"]
    assert metrics["num_parameters"] == Shape(700, 32, 48, 1, 2, 128).num_parameters
    assert resolve_base(workspace, model) == folder

    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="changed since"):
        resolve_base(workspace, model)


def refused(tmp_path: Path, folder: Path) -> str:
    model = schema.Model(name="mine", kind="local", path=str(folder), max_context_tokens=128)
    with pytest.raises(DataError) as error:
        base_model.run(base_model.Config(model, 13), Workspace(tmp_path, tmp_path))
    assert not (tmp_path / "models/base/mine/manifest.json").exists()
    return str(error.value)


def test_what_is_no_safe_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert "config.json is missing" in refused(tmp_path, folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert "no weights" in refused(tmp_path, folder)
    (folder / "pytest_model.bin").write_bytes(b"pickle")
    assert ".bin and .pt files can run code" in refused(tmp_path, folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert "no tokenizer" in refused(tmp_path, folder)


def test_a_hub_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append({"name": name, **options})
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    model = schema.Model(name="far", kind="hub", path="some/model", revision="0123abc", max_context_tokens=128)
    with pytest.raises(DataError, match="hf download some/model --revision 0123abc"):
        base_model.run(base_model.Config(model, 13), Workspace(tmp_path, tmp_path))
    assert [options.get("local_files_only") for options in asked] == [True, None]  # first without network
    assert {options["revision"] for options in asked} == {"0123abc"}
    assert not any("bin" in pattern for pattern in asked[0]["allow_patterns"])
    assert "LICENSE*" in asked[0]["allow_patterns"]


def test_a_hub_model_is_taken_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = local_model(tmp_path / "snapshots" / "4f5e6d")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(snapshot))
    model = schema.Model(name="far", kind="hub", path="some/model", revision="main", max_context_tokens=128)
    base_model.run(base_model.Config(model, 13), Workspace(tmp_path, tmp_path))
    manifest = json.loads((tmp_path / "models/base/far/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["revision"], manifest["path"]) == ("4f5e6d", str(snapshot))
    assert "some/model is not pinned: model.revision main is now the commit 4f5e6d" in capsys.readouterr().err
    base_model.run(base_model.Config(replace(model, revision="4f5e6d"), 13), Workspace(tmp_path, tmp_path))
    assert capsys.readouterr().err == ""


def test_a_recipe_belongs_to_a_built_model_only() -> None:
    model = {"name": "tiny", "kind": "build", "max_context_tokens": 640}
    with pytest.raises(ConfigError, match="recipe"):
        parse_section(base_model.Config, {"model": model, "seed": 1}, "base_model")
