from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.atomic import write_json
from stages.core.workspace import Workspace
from stages.serving.releases import resolve
from stages.serving.releasing import register
from stages.serving.verify_command import verify_command
from stages.serving.verifying import verify

ADAPTER, EXPORT = "models/world/rag_lora", "models/export/world/rag"


def rewrite(path: Path, text: str) -> None:
    """As an editor does; the file may be a link into the cache."""
    path.unlink()
    path.write_text(text)


def change_note(root: Path, **changes: Any) -> None:
    path = root / ADAPTER / "adapter.json"
    rewrite(path, json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_just_made_is_right(repository: Workspace) -> None:
    register("rag", repository, "world")
    resolve("rag@v1.0.0", repository, "world")
    findings = verify(repository)
    assert findings.problems == []
    assert findings.checked == {
        "outputs of dvc.lock": 3,
        "manifests": 3,  # of the base, of the export, of the version
        "adapter.json: base_sha256": 1,
        "adapter.json: data_sha256": 1,
    }
    assert findings.absent == {"adapter.json: prompt_hash": 1}  # no build_rag_data here to say which it was


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (f"{ADAPTER}/adapter_model.safetensors", f"{ADAPTER}/adapter_model.safetensors was changed"),
        (f"{EXPORT}/model.safetensors", f"{EXPORT}/model.safetensors was changed"),
        ("models/base/random/model.safetensors", "model.safetensors was changed"),
        ("data/world/rag/train.jsonl", "adapter.json: trained on another train.jsonl"),
        ("reports/world/metrics.json", "reports/world/metrics.json: "),
        (".cache/releases/world-rag/v1.0.0/config.json", "v1.0.0/config.json was changed"),
        (f"{EXPORT}/manifest.json", f"{EXPORT}/manifest.json was changed"),
    ],
)
def test_a_changed_file_is_named(repository: Workspace, file: str, problem: str) -> None:
    register("rag", repository, "world")
    resolve("rag@v1.0.0", repository, "world")
    rewrite(repository.inputs / file, "[]")
    assert any(problem in found for found in verify(repository).problems), verify(repository).problems


def test_an_edit_that_restores_size_and_time_is_found(repository: Workspace) -> None:
    import os

    verify(repository)
    weights = repository.inputs / EXPORT / "model.safetensors"
    stat = weights.stat()
    weights.chmod(0o644)
    weights.write_text("Merged")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert f"{EXPORT}/model.safetensors was changed" in verify(repository).problems


def test_notes_that_name_another_base_or_prompt(repository: Workspace) -> None:
    write_json(repository.inputs / "reports/world/build_rag_data/metrics.json", {"template_hash": "e" * 64})
    change_note(repository.inputs, base_sha256="0" * 64)
    problems = verify(repository).problems
    assert f"{ADAPTER}/adapter.json: base_sha256 {'0' * 12}: no model here has these weights" in problems
    assert f"{ADAPTER}/adapter.json: prompt_hash {'f' * 12}, the data were rendered with {'e' * 12}" in problems
    change_note(repository.inputs, prompt={"name": "own"})
    assert not any("prompt_hash" in problem for problem in verify(repository).problems)
    rewrite(repository.inputs / ADAPTER / "adapter.json", "{")
    assert f"{ADAPTER}/adapter.json: broken or empty" in verify(repository).problems


def test_what_is_not_here_is_counted_and_no_fault(repository: Workspace) -> None:
    shutil.rmtree(repository.inputs / EXPORT)
    findings = verify(repository)
    assert findings.problems == [] and findings.absent["outputs of dvc.lock"] == 1
    shutil.rmtree(repository.inputs / "data")
    assert verify(repository).absent["adapter.json: data_sha256"] == 1


def test_nothing_built_yet(tmp_path: Path) -> None:
    findings = verify(Workspace(tmp_path, tmp_path))
    assert (findings.problems, findings.checked) == ([], {})


def test_the_command_ends_with_1_and_names_what_is_wrong(repository: Workspace) -> None:
    app = typer.Typer(cls=Commands)
    app.command("verify")(verify_command(repository))
    app.command("other")(lambda: None)
    runner = CliRunner()
    right = runner.invoke(app, ["verify"])
    assert right.exit_code == 0 and "outputs of dvc.lock: 3 checked" in right.stdout
    rewrite(repository.inputs / EXPORT / "config.json", "[]")
    wrong = runner.invoke(app, ["verify", "--json"])
    assert wrong.exit_code == 1
    assert f"{EXPORT}/config.json was changed" in wrong.stderr and "dvc checkout" in wrong.stderr
    assert json.loads(wrong.stdout)["checked"]["manifests"] == 2
