from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.serving.explain_command import explain_command
from stages.serving.lineage import ABSENT, AS_LOCKED, CHANGED, RERUN, explain
from stages.serving.release_command import release_command

ADAPTER, EXPORT = "models/world/rag_lora", "models/export/world/rag"
Rebuild = Callable[..., None]
runner = CliRunner()


@pytest.fixture
def app(repository: Workspace) -> typer.Typer:
    app = typer.Typer(cls=Commands)
    app.command("explain")(explain_command(repository))
    app.command("release")(release_command(lambda: "world", repository))
    return app


def head(root: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()


def test_the_chain_of_an_export(repository: Workspace) -> None:
    cost = {"device": "cpu: small", "wall_s": 1.5}
    write_json(repository.inputs / "reports/world/cost/train_rag_lora.json", cost)
    lineage = explain(EXPORT, repository)
    assert (lineage.path, lineage.state, lineage.differences) == (EXPORT, AS_LOCKED, [])
    assert [step.stage for step in lineage.steps] == ["export_model@rag", "train_rag_lora"]
    assert [(s.path, s.made_by, s.state) for s in lineage.steps[0].sources] == [
        ("models/world", ("train_rag_lora",), AS_LOCKED),
        ("weights", (), AS_LOCKED),
    ]
    assert lineage.steps[1].cost == cost
    assert lineage.settings["export_model.variants.rag"] == {"adapter": ADAPTER}
    assert explain(ADAPTER, repository).notes["adapter.json"]["prompt_hash"] == "f" * 64


def test_a_file_in_an_output_and_other_spellings(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository.inputs
    monkeypatch.chdir(root / "models")
    spellings = [f"{ADAPTER}/adapter.json", f"./{ADAPTER}/", str(root / ADAPTER), "world/rag_lora"]
    assert {explain(spelling, repository).path for spelling in spellings} == {ADAPTER}


def test_the_commit_is_the_last_that_changed_what_the_lock_says_of_it(
    repository: Workspace, rebuild: Rebuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = head(repository.inputs)
    rebuild(rank=8, variants=("rag", "small"))  # another entry of the lock changes, and this one does not
    assert head(repository.inputs) != first
    commit = explain(ADAPTER, repository).commit
    assert commit is not None and (commit.revision, commit.author, commit.subject) == (first, "Ada", "Rank 8")
    lock = repository.inputs / "dvc.lock"
    lock.write_text(lock.read_text().replace("r: 8", "r: 9"))
    assert explain(ADAPTER, repository).commit is None


def test_what_lies_here_is_compared_with_the_lock(repository: Workspace) -> None:
    weights = repository.inputs / ADAPTER / "adapter_model.safetensors"
    weights.unlink()
    weights.write_text("rank 99")
    (weights.parent / "extra.txt").write_text("")
    lineage = explain(EXPORT, repository)
    assert lineage.state == AS_LOCKED and lineage.steps[0].sources[0].state == CHANGED
    assert explain(ADAPTER, repository).differences == [
        f"{ADAPTER}/adapter_model.safetensors was changed",
        f"{ADAPTER}/extra.txt is not of it",
    ]
    shutil.rmtree(weights.parent)
    assert explain(ADAPTER, repository).state == ABSENT


def test_an_input_that_was_made_again_since_is_said(repository: Workspace) -> None:
    lock = repository.inputs / "dvc.lock"
    lines = lock.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.strip() == "outs:" and "rag_lora" in lines[n + 1])
    (md5,) = (line for line in lines[at : at + 4] if "md5: " in line and ".dir" in line)
    lines[lines.index(md5, at)] = md5[: md5.index("md5: ")] + "md5: " + "0" * 32 + ".dir"
    text = "\n".join(lines).replace("path: models/world\n", f"path: {ADAPTER}\n")
    lock.write_text(text + "\n")
    assert explain(EXPORT, repository).steps[0].sources[0].state == RERUN


def test_what_the_pipeline_did_not_make_is_refused(repository: Workspace, app: typer.Typer) -> None:
    with pytest.raises(DataError, match=rf"weights: no output of the pipeline; dvc.lock names {ADAPTER}, {EXPORT}"):
        explain("weights", repository)
    result = runner.invoke(app, ["explain", "nope"])
    assert result.exit_code == 1 and "error: nope: no output of the pipeline" in result.stderr
    (repository.inputs / "dvc.lock").write_text("stages: [")
    with pytest.raises(DataError, match=r"not a lock file of DVC"):
        explain(ADAPTER, repository)


def test_the_tree_shows_texts_as_texts(repository: Workspace, app: typer.Typer) -> None:
    note = repository.inputs / ADAPTER / "adapter.json"
    note.unlink()
    write_json(note, {"model": "[bold]tiny[/bold]\x1b[2J\nforged", "lora": {"r": 8, "modules": ["q", "k"]}})
    result = runner.invoke(app, ["explain", ADAPTER])
    assert result.exit_code == 0
    assert "model  [bold]tiny[/bold][2J\\nforged" in result.stdout
    assert 'lora  modules ["q", "k"], r 8' in result.stdout
    assert f"{ADAPTER}/adapter.json was changed" in result.stdout
    assert "made by train_rag_lora" in result.stdout


def test_the_tree_says_where_and_how_it_was_trained(repository: Workspace, app: typer.Typer) -> None:
    cost = {"device": "gpu: 2 x big", "launch": {"kind": "ddp", "num_processes": 2}, "wall_s": 1.5}
    write_json(repository.inputs / "reports/world/cost/train_rag_lora.json", cost)
    assert "gpu: 2 x big, launch ddp, processes 2, 1.5 s" in runner.invoke(app, ["explain", ADAPTER]).stdout


def test_json_holds_everything(repository: Workspace, app: typer.Typer) -> None:
    result = runner.invoke(app, ["explain", "reports/world/metrics.json", "--json"])
    content = json.loads(result.stdout)
    assert content["commit"]["subject"] == "Rank 8"
    assert len(content["steps"][0]["params"]) == 64


def test_releasing_and_listing_by_command(repository: Workspace, rebuild: Rebuild, app: typer.Typer) -> None:
    assert runner.invoke(app, ["release"]).exit_code == 2
    assert "no version of any export is registered" in runner.invoke(app, ["release", "--list"]).stderr
    first = runner.invoke(app, ["release", "rag", "-m", "[red]First"])
    assert f"dvc push {EXPORT}\n  git push origin HEAD world-rag@v1.0.0" in first.stdout
    rebuild(rank=16)
    assert runner.invoke(app, ["release", "world-rag", "--bump", "major"]).exit_code == 0
    shown = runner.invoke(app, ["release", "--list", "rag"], env={"COLUMNS": "160"}).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["version", "world-rag@v2.0.0", "world-rag@v1.0.0"]
    assert "tuned, exact_match 0.660 [0.250, 1.000]" in shown[1] and "[red]First" in shown[2]
    again = runner.invoke(app, ["release", "rag"])
    assert again.exit_code == 1 and "already, byte for byte" in again.stderr
