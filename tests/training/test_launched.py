"""Trained by two processes: the same curve as by one, one writer, and killed and run again the same bytes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from stages import train_book_lora
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_files
from stages.core.launch import Launch
from stages.core.schema import Lora, Model, Training
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import read_chunks, write_knowledge

ROOT = Path(__file__).resolve().parents[2]
SINGLE, DDP = Launch("single"), Launch("ddp", 2)
TIME_COLUMN = "tokens_per_s"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def config(model_config: Model) -> train_book_lora.Config:
    """Steps of 4 batches; an epoch ends with a step of fewer, and with a batch that is not full. Dropout is on."""
    training = Training(
        learning_rate=0.02,
        num_epochs=2,
        batch_size=1,
        accumulation=4,
        max_length=48,
        checkpoint_every_epochs=0.5,
        num_threads=1,
    )
    lora = Lora(r=4, alpha=8, dropout=0.1, modules=["up_proj", "q_proj"])
    return train_book_lora.Config("demo", model_config, 1, 0.3, lora, training, SINGLE)


@pytest.fixture(scope="module")
def both(config: train_book_lora.Config, new_workspace: Callable[[], Workspace]) -> tuple[Workspace, Workspace]:
    """The same training by one process and by two."""
    workspaces = new_workspace(), new_workspace()
    for workspace, launch in zip(workspaces, (SINGLE, DDP), strict=True):
        train_book_lora.run(replace(config, launch=launch), workspace)
    return workspaces


def curve(workspace: Workspace, stage: str) -> list[dict[str, float]]:
    with open(workspace.outputs / f"reports/demo/{stage}/curve.csv", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if k != TIME_COLUMN} for row in csv.DictReader(file)]


def test_two_processes_train_what_one_trains(both: tuple[Workspace, Workspace]) -> None:
    one, two = (curve(workspace, "train_book_lora") for workspace in both)
    assert len(one) == 4
    assert two == [pytest.approx(row, rel=2e-4) for row in one]
    metrics = [json.loads((w.outputs / "reports/demo/train_book_lora/metrics.json").read_text()) for w in both]
    assert metrics[1]["num_train_tokens"] == metrics[0]["num_train_tokens"]  # counted once
    assert metrics[1]["num_steps"] == metrics[0]["num_steps"]
    assert metrics[1]["best_eval_loss"] == pytest.approx(metrics[0]["best_eval_loss"], rel=1e-4)


def test_they_leave_nothing_but_what_one_leaves(both: tuple[Workspace, Workspace]) -> None:
    one, two = (
        {
            str(path.relative_to(w.outputs))
            for path in w.outputs.rglob("*")
            if path.is_file() and ".cache" not in str(path)
        }
        for w in both
    )
    assert two == one
    assert not list((both[1].inputs / ".cache").rglob("checkpoint-*"))


def start(config: train_book_lora.Config, workspace: Workspace, folder: Path) -> subprocess.Popen[str]:
    """The stage in a process of its own, as a person would start it."""
    values = folder / "config.json"
    values.write_text(json.dumps(asdict(config)), encoding="utf-8")
    code = (
        "import json, sys; from pathlib import Path\n"
        "from stages import train_book_lora as stage; from stages.core.config import parse_section\n"
        "from stages.core.workspace import Workspace\n"
        "root = Path(sys.argv[2]); section = json.loads(Path(sys.argv[1]).read_text())\n"
        "stage.run(parse_section(stage.Config, section, 'train_book_lora'), Workspace(root, root))"
    )
    command = [sys.executable, "-c", code, str(values), str(workspace.outputs)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_killed_and_run_again_two_processes_leave_the_same_bytes(
    both: tuple[Workspace, Workspace],
    config: train_book_lora.Config,
    new_workspace: Callable[[], Workspace],
    tmp_path: Path,
) -> None:
    workspace, two = new_workspace(), replace(config, launch=DDP)
    process = start(two, workspace, tmp_path)
    while not list((workspace.inputs / ".cache/checkpoints").rglob("complete.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    launched = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(launched, timeout=20)
    assert not alive and len(gone) >= 3  # the launcher, and two that train
    train_book_lora.run(two, workspace)
    adapter = "models/demo/book_lora"
    assert sha256_files(workspace.outputs / adapter) == sha256_files(both[1].outputs / adapter)
    assert curve(workspace, "train_book_lora") == curve(both[1], "train_book_lora")


def test_what_a_launched_process_cannot_go_on_for_is_one_error(
    config: train_book_lora.Config, new_workspace: Callable[[], Workspace], capfd: pytest.CaptureFixture[str]
) -> None:
    workspace = new_workspace()
    knowledge = workspace.inputs / "data/demo/knowledge.sqlite"
    write_knowledge(knowledge, [], [chunk for chunk in read_chunks(knowledge) if chunk.kind != "book"])
    with pytest.raises(DataError, match="no chunk of a book"):
        train_book_lora.run(replace(config, launch=DDP), workspace)
    assert capfd.readouterr().err == ""
