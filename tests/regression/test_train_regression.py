"""The stage train_regression on a random base of a few thousand weights."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import train_regression
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import write_jsonl
from stages.core.launch import Launch
from stages.core.schema import Lora, Model, Training
from stages.core.workspace import Workspace
from stages.regression.pair_index import read_manifest
from stages.regression.pairs import Pair
from stages.regression.settings import LossSettings
from stages.regression.task import RegressionTask
from stages.train_regression import Config, Neighbours, run

ADAPTERS = "models/contracts/regression/hybrid"


@pytest.fixture
def workspace(base_workspace: Workspace, tmp_path: Path) -> Workspace:
    """Twelve training pairs and four of validation, in both splits, each with a neighbour."""
    shutil.copytree(base_workspace.inputs / "models", tmp_path / "models")
    pairs = [Pair(f"{n}--{n + 1}", str(n), str(n + 1), f"Mill {n}", f"Tower {n + 1}", n / 10 - 0.8) for n in range(16)]
    for split in ("by_contract", "by_pair"):
        for part, found in {"train": pairs[:12], "validation": pairs[12:]}.items():
            write_jsonl(tmp_path / f"data/contracts/pairs/{split}/{part}.jsonl", (pair.to_row() for pair in found))
            near = [
                {"id": pair.id, "neighbours": [{"id": pairs[(n + 1) % 12].id, "distance": 1.0}]}
                for n, pair in enumerate(found)
            ]
            write_jsonl(tmp_path / f"data/contracts/pair_index/{split}/neighbours/{part}.jsonl", near)
    (tmp_path / "data/contracts/pair_index/manifest.json").write_text(json.dumps({"top_k": 1}))
    assert read_manifest(tmp_path / "data/contracts/pair_index")["top_k"] == 1
    return Workspace(tmp_path, tmp_path)


@pytest.fixture
def config(task: RegressionTask) -> Callable[..., Config]:
    def build(**changes: Any) -> Config:
        training = {"learning_rate": 1e-2, "num_epochs": 2, "batch_size": 4, "max_length": 400, "num_threads": 1}
        values: dict[str, Any] = {
            "task": task,
            "model": Model(name="random", kind="build", max_context_tokens=512),
            "variant": "hybrid",
            "quantise": False,
            "seeds": {"by_contract": [1, 2], "by_pair": [1]},
            "limit": 0,
            "num_workers": 1,
            "neighbours": Neighbours(1, 0.5),
            "lora": Lora(r=2, alpha=4, modules=["q_proj"]),
            "loss": LossSettings("crps", 10.0, "digits", 64, 2),
            "training": Training(**training),
        }
        return Config(**{**values, **changes})

    return build


def test_a_training_for_each_split_and_seed(workspace: Workspace, config: Callable[..., Config]) -> None:
    metrics = run(config(), workspace)
    assert {split: sorted(runs) for split, runs in metrics.items()} == {
        "by_contract": ["seed-1", "seed-2"],
        "by_pair": ["seed-1"],
    }
    assert metrics["by_pair"]["seed-1"]["num_train_rows"] == 12 and metrics["by_pair"]["seed-1"]["num_steps"] == 6
    adapter = workspace.read(f"{ADAPTERS}/by_contract/seed-2")
    note = json.loads((adapter / "adapter.json").read_text())
    assert (note["seed"], note["quantise"], note["loss"]["kind"], note["loss"]["weight"]) == (2, False, "crps", 10.0)
    curve = workspace.read("reports/contracts/train_regression/hybrid/curve.csv").read_text().splitlines()
    assert curve[0].endswith("eval_number,eval_token,grad_norm_number,grad_norm_token") and len(curve) == 3
    assert not list((workspace.inputs / ".cache/checkpoints").rglob("checkpoint-*"))


@pytest.mark.slow
def test_side_by_side_ends_with_the_same_bytes(workspace: Workspace, config: Callable[..., Config]) -> None:
    run(config(), workspace)
    first = sha256_files(workspace.read(ADAPTERS))
    run(config(num_workers=2), workspace)
    assert sha256_files(workspace.read(ADAPTERS)) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [LossSettings("crps", 10.0, "digits", 64, 2), LossSettings("huber", 1.0, "head", 64, 2)]
)
def test_two_processes_train_what_one_trains(
    workspace: Workspace, config: Callable[..., Config], loss: LossSettings
) -> None:
    """Each part of the loss and the norm of its gradient, too; all trainings of the stage, one after the other."""
    training = replace(config().training, batch_size=1, accumulation=8)  # 12 rows: the second step has half of it
    curves, metrics = [], []
    for launch in (Launch(), Launch("ddp", 2)):
        settings = config(seeds={"by_contract": [1], "by_pair": [2]}, training=training, loss=loss, launch=launch)
        metrics.append(run(settings, workspace))
        with open(workspace.read("reports/contracts/train_regression/hybrid/curve.csv"), encoding="utf-8") as file:
            rows = csv.DictReader(file)
            curves.append([{k: float(v) for k, v in row.items() if k != "tokens_per_s"} for row in rows])
    assert len(curves[0]) == 2 and "grad_norm_number" in curves[0][0]
    assert curves[1] == [pytest.approx(row, rel=1e-3) for row in curves[0]]
    for split in ("by_contract", "by_pair"):
        one, two = (next(iter(found[split].values())) for found in metrics)
        assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(
    "changes", [{"quantise": True}, {"loss": LossSettings("huber", 1.0, "head", 64, 0)}], ids=["quantise", "head"]
)
def test_what_cannot_be_sharded_is_refused(
    workspace: Workspace, config: Callable[..., Config], changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="fsdp shards neither 4-bit weights"):
        run(config(launch=Launch("fsdp"), **changes), workspace)


def test_stopped_between_trainings_it_goes_on_with_the_next(
    workspace: Workspace, config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Workspace(workspace.inputs, workspace.inputs / "whole")
    run(config(), whole)
    original, started = train_regression.train, []

    def stops(run_: train_regression.Run) -> Any:
        started.append(run_.name)
        if run_.split == "by_pair":
            raise KeyboardInterrupt
        return original(run_)

    monkeypatch.setattr(train_regression, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(config(), workspace)
    assert started == ["by_contract/seed-1", "by_contract/seed-2", "by_pair/seed-1"]
    monkeypatch.setattr(train_regression, "train", original)
    monkeypatch.setattr("stages.training.trainer.LoraTrainer.training_step", only_for_by_pair(started))
    run(config(), workspace)
    assert sha256_files(workspace.read(ADAPTERS)) == sha256_files(whole.read(ADAPTERS))


def only_for_by_pair(counter: list[str]) -> Any:
    """Six steps are left: those of the third training."""
    from stages.training.trainer import LoraTrainer

    original = LoraTrainer.training_step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        counter.append("step")
        assert counter.count("step") <= 6
        return original(self, *args, **kwargs)

    return step


def test_a_head_is_saved_with_the_adapter(workspace: Workspace, config: Callable[..., Config]) -> None:
    from safetensors.torch import load_file

    seeds = {"by_pair": [1]}
    run(config(loss=LossSettings("huber", 1.0, "head", 64, 0), seeds=seeds), workspace)
    adapter = workspace.read(f"{ADAPTERS}/by_pair/seed-1")
    head = {name: value for name, value in load_file(adapter / "adapter_model.safetensors").items() if "head" in name}
    assert sorted(name.rsplit(".", 1)[-1] for name in head) == ["bias", "weight"]
    assert all(float(value.abs().sum()) > 0 for value in head.values())


@pytest.mark.slow
def test_qlora_trains_on_the_cpu(workspace: Workspace, config: Callable[..., Config]) -> None:
    run(config(quantise=True, seeds={"by_pair": [1]}), workspace)
    first = sha256_files(workspace.read(ADAPTERS))
    run(config(quantise=True, seeds={"by_pair": [1]}), workspace)
    assert sha256_files(workspace.read(ADAPTERS)) == first
    run(config(seeds={"by_pair": [1]}), workspace)
    assert sha256_files(workspace.read(ADAPTERS)) != first


def test_limit_and_neighbours_decide_on_the_rows(workspace: Workspace, config: Callable[..., Config]) -> None:
    run_ = train_regression.Run(config(limit=5, neighbours=Neighbours(1, 1.0)), workspace, "by_pair", 1)
    rows = train_regression._with_neighbours(run_, "train")
    assert [len(neighbours) for _, neighbours in rows] == [1] * 5
    none = train_regression.Run(config(neighbours=Neighbours(1, 0.0)), workspace, "by_pair", 1)
    assert not any(neighbours for _, neighbours in train_regression._with_neighbours(none, "train"))
    some = train_regression.Run(config(neighbours=Neighbours(1, 0.5)), workspace, "by_pair", 1)
    assert 0 < sum(bool(neighbours) for _, neighbours in train_regression._with_neighbours(some, "train")) < 12


def test_texts_that_are_too_long_are_shortened_and_counted(workspace: Workspace, config: Callable[..., Config]) -> None:
    path = workspace.read("data/contracts/pairs/by_pair/train.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["a"] = "Mill " * 200
    write_jsonl(path, rows)
    metrics = run(config(seeds={"by_pair": [1]}, neighbours=Neighbours(1, 0.0)), workspace)
    assert metrics["by_pair"]["seed-1"]["num_shortened"] == 1
    training = replace(config().training, max_length=60)
    with pytest.raises(DataError, match="0 neighbours in"):
        run(config(training=training, neighbours=Neighbours(1, 0.0)), workspace)
