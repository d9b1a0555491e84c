"""A repository of Git and DVC that trains an adapter, measures it and exports it: real stages, files of a few bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stages.core.atomic import write_json
from stages.core.fingerprint import sha256_files
from stages.core.workspace import ROOT, Workspace

SCRIPT = f"""
import json, pathlib, shutil, sys
sys.path.insert(0, {str(ROOT)!r})
from stages.core.fingerprint import sha256_file
from stages.export.manifest import write_manifest
from stages.training.lora import weights_sha256

root, (what, argument) = pathlib.Path.cwd(), sys.argv[1:]
if what == "train":
    folder = root / "models/world/rag_lora"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text("rank " + argument)
    (folder / "adapter_config.json").write_text("{{}}")
    note = {{"base_sha256": weights_sha256(root / "models/base/random"), "prompt_hash": "f" * 64,
            "data_sha256": {{"train.jsonl": sha256_file(root / "data/world/rag/train.jsonl")}}}}
    (folder / "adapter.json").write_text(json.dumps(note))
    value = {{"value": 0.5 + int(argument) / 100, "low": 0.25, "high": 1.0, "n": 92}}
    (root / "reports/world/metrics.json").write_text(json.dumps({{"answers": {{"tuned": {{"exact_match": value}}}}}}))
else:
    folder = root / "models/export/world" / argument
    shutil.copytree(root / "weights", folder, dirs_exist_ok=True)
    shutil.copytree(root / "models/world/rag_lora", folder / "adapter", dirs_exist_ok=True)
    write_manifest(folder)
"""
PIPELINE = {
    "train_rag_lora": {
        "cmd": f"{sys.executable} make.py train ${{train_rag_lora.lora.r}}",
        "deps": ["data/world/rag"],
        "params": ["train_rag_lora"],
        "outs": ["models/world/rag_lora"],
        "metrics": [{"reports/world/metrics.json": {"cache": False}}],
    },
    "export_model": {
        "foreach": "${export_model.variants}",
        "do": {
            "cmd": f"{sys.executable} make.py export ${{key}}",
            "deps": ["models/world", "weights"],
            "params": [
                *(f"export_model.{key}" for key in ("domain", "model", "prompt", "card")),
                "export_model.variants.${key}",
            ],
            "outs": ["models/export/world/${key}"],
        },
    },
}
MODEL = {"name": "random", "kind": "build", "max_context_tokens": 512}
PROMPT = {
    "name": "test",
    "with_documents": "Answer from these.\n{documents}",
    "without_documents": "Answer.",
    "documents": "<documents>\n{documents}\n</documents>",
    "document": "<document {number}>\n{text}\n</document>",
    "abstain": "Unknown.",
}


def params(rank: int = 8, variants: tuple[str, ...] = ("rag",)) -> str:
    adapter = {"adapter": "models/world/rag_lora"}
    card = {"results": "reports/world/metrics.json", "figures": {"tuned": "answers.tuned"}}
    export = {"domain": "world", "model": MODEL, "prompt": PROMPT, "card": card}
    sections = {
        "train_rag_lora": {"model": MODEL, "lora": {"r": rank}},
        "export_model": {**export, "variants": dict.fromkeys(variants, adapter)},
    }
    return yaml.safe_dump(sections)


def sh(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def repro(root: Path) -> None:
    """`dvc repro`, in this process; it runs in the current folder."""
    from dvc.repo import Repo

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with Repo(str(root)) as repository:
            repository.reproduce()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after its first `dvc repro`, committed; not to be changed."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("built") / "repository"
    for folder in ("data/world/rag", "models/base/random", "reports/world", "weights"):
        (root / folder).mkdir(parents=True)
    sh(root, "git", "init", "-q", "-b", "main")
    sh(root, "git", "config", "user.name", "Ada")
    sh(root, "git", "config", "user.email", "ada@example.org")
    with Repo.init(str(root)) as repository, repository.config.edit() as config:
        config["cache"]["type"] = ["hardlink", "copy"]
        config["core"]["analytics"] = False
    (root / "make.py").write_text(SCRIPT)
    (root / "data/world/rag/train.jsonl").write_text('{"id": "qa-1"}\n')
    (root / "models/base/random/model.safetensors").write_text("base")
    (root / "weights/config.json").write_text("{}")
    (root / "weights/model.safetensors").write_text("merged")
    files = {"name": "random", "kind": "build", "path": ".", "files": sha256_files(root / "models/base/random")}
    write_json(root / "models/base/random/manifest.json", files)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": PIPELINE}))
    (root / "params.yaml").write_text(params())
    (root / ".gitignore").write_text("/models\n/.cache\n")
    repro(root)
    sh(root, "git", "add", ".")
    sh(root, "git", "commit", "-qm", "Rank 8")
    return root


@pytest.fixture
def repository(built: Path, tmp_path: Path) -> Workspace:
    """A copy to change."""
    shutil.copytree(built, tmp_path / "repository")
    return Workspace(tmp_path / "repository", tmp_path / "repository")


@pytest.fixture
def rebuild(repository: Workspace) -> Callable[..., None]:
    """Changes params.yaml as `params` says, runs what that changes, commits."""

    def rebuild_(rank: int = 8, variants: tuple[str, ...] = ("rag",)) -> None:
        (repository.inputs / "params.yaml").write_text(params(rank, variants))
        repro(repository.inputs)
        sh(repository.inputs, "git", "commit", "-qam", f"Rank {rank}")

    return rebuild_
