"""The real axolotl, in its own environment, on a tiny model; skipped where `make axolotl` has not built it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.axolotl import checked_train
from stages.axolotl.environment import child_environment, python_of, venv_folder
from stages.axolotl.rendering import Job, Places, as_yaml, render
from stages.axolotl.settings import Axolotl
from stages.axolotl.training import AxolotlTrained, train_with_axolotl
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.schema import Lora, Model, Training
from stages.generation.loading import load_model, load_tokenizer
from stages.training.lora import ADAPTER_WEIGHTS
from stages.training.merging import compare, merge_in_place, prompt_logits
from stages.training.objective import TokenRow
from stages.training.sft import train_lora

pytestmark = [pytest.mark.axolotl, pytest.mark.slow]
CONF = Path(__file__).resolve().parents[2] / "conf" / "axolotl"
MODEL = Model(name="llama", kind="build", max_context_tokens=128)
NUM_EVAL = 4  # one batch: the mean over batches is then the mean over tokens
Train = Callable[..., AxolotlTrained]


@pytest.fixture
def train(
    real_root: Path,
    tiny_llama: Path,
    axolotl_settings: Callable[..., Axolotl],
    axolotl_lora: Lora,
    axolotl_training: Training,
    token_rows: Callable[..., list[TokenRow]],
    tmp_path: Path,
) -> Train:
    """Trains 32 rows for 2 epochs of 8 steps; saves to `save_to`, below which axolotl/ can be run by hand."""

    def run(save_to: Path, base: Path = tiny_llama, every_epochs: float = 1.0, **settings: Any) -> AxolotlTrained:
        with train_with_axolotl(
            base,
            load_tokenizer(tiny_llama),
            token_rows(32),
            token_rows(NUM_EVAL, 40),
            axolotl_lora,
            replace(axolotl_training, checkpoint_every_epochs=every_epochs),
            axolotl_settings(**settings),
            seed=13,
            base_sha256="",
            checkpoint_root=tmp_path / "checkpoints",
            root=real_root,
            by_hand=Places(str(base), str(save_to / "axolotl"), str(save_to / "by_hand")),
        ) as trained:
            save_to.mkdir()
            trained.save(save_to)
        return trained

    return run


@pytest.fixture
def train_trl(
    tiny_llama: Path,
    axolotl_lora: Lora,
    axolotl_training: Training,
    token_rows: Callable[..., list[TokenRow]],
    tmp_path: Path,
) -> Callable[[], Any]:
    """The other backend, on the same rows."""

    @contextmanager
    def run() -> Iterator[Any]:
        with train_lora(
            load_model(tiny_llama, MODEL),
            load_tokenizer(tiny_llama),
            token_rows(32),
            token_rows(NUM_EVAL, 40),
            axolotl_lora,
            axolotl_training,
            seed=13,
            base_sha256="",
            checkpoint_root=tmp_path / "trl",
        ) as trained:
            yield trained

    return run


def weights(folder: Path) -> bytes:
    return (folder / ADAPTER_WEIGHTS).read_bytes()


def test_lora_reaches_the_same_loss_as_trl_and_goes_on_after_a_kill_and_by_hand(
    train: Train, train_trl: Callable[[], Any], tmp_path: Path, real_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(tmp_path / "adapter")
    assert [row.step for row in trained.curve] == [8, 16]
    with train_trl() as other:
        assert trained.figures["best_eval_loss"] == pytest.approx(other.figures["best_eval_loss"], rel=0.02)
        assert set(trained.figures) == set(other.figures)
        for figure in ("num_steps", "num_train_tokens", "num_trainable_parameters", "num_epochs_run"):
            assert trained.figures[figure] == other.figures[figure], figure
        other.save(tmp_path)
        assert {p.name for p in (tmp_path / "adapter").iterdir()} - {"axolotl"} == {
            p.name for p in tmp_path.iterdir() if p.is_file()
        }
    assert trained.curve[-1].train_loss == pytest.approx(other.curve[-1].train_loss, rel=0.02)

    rows: list[int] = []

    def interrupt(path: Path, curve: list[Any]) -> None:
        rows.append(len(curve))
        if len(curve) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("stages.axolotl.training.write_curve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed")
    monkeypatch.undo()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    shutil.rmtree(folder / "output" / "checkpoint-16", ignore_errors=True)  # should it have come so far
    resumed = train(tmp_path / "resumed")
    assert weights(tmp_path / "resumed") == weights(tmp_path / "adapter")
    assert [replace(row, tokens_per_s=0.0) for row in resumed.curve] == [
        replace(row, tokens_per_s=0.0) for row in trained.curve
    ]

    venv = venv_folder(Axolotl(venv=".venv-axolotl", device="cpu", silence_timeout_s=1), real_root)
    done = subprocess.run(
        [venv / "bin/axolotl", "train", tmp_path / "adapter/axolotl/axolotl.yml"],
        env=child_environment(venv, "cpu", 1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(tmp_path / "adapter/by_hand")  # another draw of the adapter: axolotl alone does not seed it
    state = json.loads((tmp_path / "adapter/by_hand/checkpoint-16/trainer_state.json").read_text())
    (by_hand,) = [log["eval_loss"] for log in state["log_history"] if log["step"] == 16 and "eval_loss" in log]
    assert by_hand == pytest.approx(trained.figures["best_eval_loss"], rel=0.02)


def test_qlora_trains_and_its_adapter_merges(train: Train, tiny_llama: Path, tmp_path: Path) -> None:
    trained = train(tmp_path / "adapter", every_epochs=0.75, quantise=True)
    assert [row.step for row in trained.curve] == [6, 12, 16]  # the last step too
    assert trained.curve[-1].eval_loss < trained.curve[0].eval_loss
    prompts = [[3, 4, 5, 6], [20, 21, 22]]
    adapted = load_model(tiny_llama, MODEL, tmp_path / "adapter")
    reference = prompt_logits(adapted, prompts)
    assert compare(prompt_logits(load_model(tiny_llama, MODEL), prompts), reference).max_logit_difference > 0.01
    assert compare(reference, prompt_logits(merge_in_place(adapted), prompts)).max_logit_difference < 1e-5


def test_what_axolotl_would_ignore_is_refused_and_its_own_errors_are_shown(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="axolotl has no setting lora_rr"):
        train(tmp_path / "a", options={"lora_rr": 8})
    with pytest.raises(ConfigError, match=r"plugins: nowhere\.Plugin cannot be imported"):
        train(tmp_path / "b", plugins=["nowhere.Plugin"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"axolotl failed with exit code 1:\n  \w*Error: .*empty"):
        train(tmp_path / "c", base=tmp_path / "empty")


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")), ids="{}.yaml".format)
def test_every_shipped_profile_is_valid_by_axolotls_schema(
    name: str, real_root: Path, axolotl_lora: Lora, axolotl_training: Training, tmp_path: Path
) -> None:
    profile: dict[str, Any] = {}
    for file in ("gpu", name):  # gpu_lora stands over gpu
        profile |= yaml.safe_load((CONF / f"{file}.yaml").read_text())["axolotl"]
    settings = parse_section(Axolotl, profile, "axolotl")
    section = yaml.safe_load((CONF / "gpu.yaml").read_text())["train_style"] if settings.device == "gpu" else {}
    job = Job(
        settings,
        parse_section(Lora, section["lora"], "lora") if section else axolotl_lora,
        parse_section(Training, section["training"], "training") if section else axolotl_training,
        seed=13,
        num_train_rows=900,
        pad_token="<|end_of_text|>",
    )
    (tmp_path / "axolotl.yml").write_text(as_yaml(render(job, Places("base", "data", "output"))))
    venv = venv_folder(settings, real_root)
    command = [python_of(venv), "-P", checked_train.__file__, "--check", tmp_path / "axolotl.yml"]
    done = subprocess.run(
        [*command, *(["--gpu"] if settings.device == "gpu" else [])],
        env=child_environment(venv, settings.device, 1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
