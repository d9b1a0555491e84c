"""Driving axolotl, with a stand-in for its Python: what it writes, and every way in which it can go wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.axolotl.environment import child_environment, venv_versions
from stages.axolotl.rendering import Places
from stages.axolotl.settings import Axolotl
from stages.axolotl.training import AxolotlOrigin, AxolotlTrained, by_hand_places, train_with_axolotl
from stages.core.errors import ConfigError, DataError
from stages.core.schema import Lora, Model, Training
from stages.core.workspace import Workspace
from stages.training.checkpoints import locked
from stages.training.objective import TokenRow
from stages.training.results import write_results

PLACES = Places("models/demo/book_merged", "models/demo/styles/x/axolotl", "runs/axolotl/x")


class Words:
    """All that training asks of a tokenizer."""

    pad_token = None
    eos_token = "<|end|>"


@pytest.fixture
def train(
    fake_venv: Path,
    axolotl_settings: Callable[..., Axolotl],
    axolotl_lora: Lora,
    axolotl_training: Training,
    token_rows: Callable[[int], list[TokenRow]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., AxolotlTrained]:
    """Trains 8 rows for 2 epochs of 2 steps with a stand-in that behaves as told."""

    def run(behaviour: str, save_to: Path | None = None, rows: Any = None, **settings: Any) -> AxolotlTrained:
        monkeypatch.setenv("FAKE_AXOLOTL", behaviour)
        with train_with_axolotl(
            fake_venv / "base",
            Words(),
            token_rows(8) if rows is None else rows,
            token_rows(3),
            axolotl_lora,
            axolotl_training,
            axolotl_settings(**settings),
            seed=13,
            base_sha256="b" * 64,
            checkpoint_root=fake_venv / "checkpoints",
            root=fake_venv,
            by_hand=PLACES,
        ) as trained:
            if save_to is not None:
                save_to.mkdir()
                trained.save(save_to)
        return trained

    return run


def work_folder(fake_venv: Path) -> Path:
    (folder,) = (fake_venv / "checkpoints").iterdir()
    return folder


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_becomes_a_curve_figures_and_an_adapter(
    train: Callable[..., AxolotlTrained], fake_venv: Path, tmp_path: Path
) -> None:
    trained = train("ok", save_to=tmp_path / "adapter")
    assert [(row.step, row.epoch, row.train_loss, row.eval_loss) for row in trained.curve] == [
        (2, 1.0, 3.0, 2.5),
        (4, 2.0, (4 / 3 + 1) / 2, 1.25),
    ]
    num_tokens = sum(12 + n % 7 for n in range(8))
    assert trained.curve[0].tokens_per_s == num_tokens / 2  # two steps in two seconds
    assert trained.curve[0].learning_rate == 0.05
    assert trained.figures == {
        "best_eval_loss": 1.25,
        "best_epoch": 2.0,
        "num_epochs_run": 2.0,
        "num_steps": 4,
        "num_train_tokens": 2 * num_tokens,
        "num_trainable_parameters": 6,
    }
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text()) == {
        "base_model_name_or_path": None,
        "r": 4,
        "target_modules": ["q_proj", "v_proj"],
    }
    assert sorted(path.name for path in (tmp_path / "adapter/axolotl").iterdir()) == [
        "axolotl.yml",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert not list((fake_venv / "checkpoints").iterdir())  # gone on success


def test_the_yaml_left_behind_is_the_one_that_ran_but_for_its_places(
    train: Callable[..., AxolotlTrained], fake_venv: Path
) -> None:
    with pytest.raises(DataError):
        train("fail")
    folder = work_folder(fake_venv)
    ran, left = (yaml.safe_load((folder / name).read_text()) for name in ("axolotl.yml", "axolotl/axolotl.yml"))
    different = {key for key in ran if ran[key] != left[key]}
    assert different == {"base_model", "datasets", "test_datasets", "dataset_prepared_path", "output_dir"}
    assert ran["special_tokens"] == {"pad_token": "<|end|>"}
    assert str(fake_venv) not in json.dumps(left)


def test_the_yaml_left_behind_starts_from_the_repository_wherever_the_outputs_go(tmp_path: Path) -> None:
    base, trial = tmp_path / "models/demo/book_merged", Workspace(tmp_path, tmp_path / "runs/train_style/1")
    assert by_hand_places(Workspace(tmp_path, tmp_path), base, "models/demo/styles/x") == PLACES
    assert by_hand_places(trial, base, "models/demo/styles/x").data == "runs/train_style/1/models/demo/styles/x/axolotl"
    assert by_hand_places(trial, Path("/hub/llama"), "models/demo/styles/x").base == "/hub/llama"


def test_the_rest_of_the_pipeline_sees_the_same_results(
    train: Callable[..., AxolotlTrained],
    fake_venv: Path,
    axolotl_settings: Callable[..., Axolotl],
    axolotl_lora: Lora,
    axolotl_training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model(name="tiny", kind="build", max_context_tokens=64)
    versions = venv_versions(axolotl_settings(), fake_venv)
    origin = AxolotlOrigin(model, "b" * 64, "p" * 64, [], axolotl_lora, axolotl_training, 13, versions)
    workspace = Workspace(tmp_path, tmp_path)
    monkeypatch.setattr(AxolotlTrained, "save", lambda self, folder: None)
    write_results(workspace, train("ok"), origin, "adapter", "report", {"num_train_rows": 8})
    note = json.loads((tmp_path / "adapter/adapter.json").read_text())
    assert (note["base_sha256"], note["prompt_hash"]) == ("b" * 64, "p" * 64)
    assert note["versions"] == {"axolotl": "0.19.0", "peft": "0.20.0"}
    assert json.loads((tmp_path / "report/metrics.json").read_text())["best_eval_loss"] == 1.25
    assert (tmp_path / "report/curve.csv").read_text().count("\n") == 3


def test_killed_and_run_again_goes_on_from_the_last_whole_checkpoint(
    train: Callable[..., AxolotlTrained], fake_venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="killed by SIGKILL; the kernel stops what takes too much memory"):
        train("killed")
    folder = work_folder(fake_venv)
    assert (folder / "curve.csv").read_text().splitlines()[1].startswith("2,1,3,2.5")  # as it went
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    with pytest.raises(DataError, match=r"left no adapter_model\.safetensors"):
        train("no_adapter")
    _, start, python_path, safe_path = (folder / "started").read_text().split()
    assert (start, python_path, safe_path) == ("2", "None", "-P")
    with pytest.raises(FileExistsError):
        train("ok", save_to=folder)  # trained, but what comes after it fails
    with pytest.raises(DataError, match=r"left no adapter_model\.safetensors"):
        train("no_adapter")  # the one of the attempt before does not count
    resumed = train("ok")
    assert [row.step for row in resumed.curve] == [2, 4]
    assert resumed.figures["best_eval_loss"] == 1.25


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        ("fail", DataError, "failed with exit code 1:\n  torch.OutOfMemoryError: 7 GB are too few\n  bye"),
        ("refuse", ConfigError, "axolotl: axolotl has no setting lora_rr; look in conf/axolotl"),
        ("no_adapter", DataError, "exit code 0 but left no adapter_model.safetensors, adapter_config.json"),
        ("drops", DataError, "axolotl trained 141 tokens with a label, in the rows there are 142"),
        ("nan", DataError, "stopped at step 3: loss is nan"),
        ("hang", DataError, "no sign of life for 2 s and was stopped.*\n  reading the config"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_runs_on(
    train: Callable[..., AxolotlTrained], fake_venv: Path, behaviour: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(behaviour, silence_timeout_s=2 if behaviour == "hang" else 60)
    assert not is_running(int((work_folder(fake_venv) / "started").read_text().split()[0]))


def test_an_interrupted_caller_leaves_nothing_running(
    train: Callable[..., AxolotlTrained], fake_venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.axolotl.training.write_curve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train("nan")  # would sleep for a minute
    assert not is_running(int((work_folder(fake_venv) / "started").read_text().split()[0]))


def test_a_missing_environment_names_the_way_out(train: Callable[..., AxolotlTrained]) -> None:
    with pytest.raises(ConfigError, match=r"axolotl\.venv: .*nowhere has no Python; run `make axolotl`"):
        train("ok", venv="nowhere")


def test_an_environment_without_axolotl_is_no_environment(
    fake_venv: Path, axolotl_settings: Callable[..., Axolotl]
) -> None:
    (metadata,) = fake_venv.rglob("axolotl-0.19.0.dist-info/METADATA")
    metadata.unlink()
    metadata.parent.rmdir()
    with pytest.raises(ConfigError, match="has no axolotl; run `make axolotl`"):
        venv_versions(axolotl_settings(), fake_venv)


def test_another_version_than_the_tested_one_is_refused(train: Callable[..., AxolotlTrained]) -> None:
    with pytest.raises(ConfigError, match=r"has axolotl 0\.19\.0, tested is 0\.18\.0; run .*make axolotl.*or set"):
        train("ok", version="0.18.0")


def test_rows_are_checked_before_anything_runs(train: Callable[..., AxolotlTrained], fake_venv: Path) -> None:
    with pytest.raises(DataError, match="training row a: 65 tokens, max_length is 64"):
        train("ok", rows=[TokenRow("a", [3] * 65, 5)])
    with pytest.raises(DataError, match="there are no training rows"):
        train("ok", rows=[])
    assert not (fake_venv / "checkpoints").exists()


def test_a_second_process_at_the_same_training_is_refused(
    train: Callable[..., AxolotlTrained], fake_venv: Path
) -> None:
    with pytest.raises(DataError):
        train("fail")
    with locked(work_folder(fake_venv)), pytest.raises(DataError, match="another process is training exactly this"):
        train("ok")


def test_its_process_sees_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    environment = child_environment(Path("/theirs"), "cpu", num_threads=2)
    assert "PYTHONPATH" not in environment
    assert environment["VIRTUAL_ENV"] == "/theirs"
    assert environment["PATH"].startswith("/theirs/bin:")
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert child_environment(Path("/theirs"), "gpu", num_threads=0)["CUDA_VISIBLE_DEVICES"] == "1"
