"""Our configuration as axolotl's: exact keys, both profiles, and what may not be set twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from stages.axolotl.rendering import KERNELS, Job, Places, as_yaml, render, write_bundle
from stages.axolotl.settings import Axolotl
from stages.core.config import parse_section
from stages.core.errors import ConfigError
from stages.core.schema import Lora, Training
from stages.training.curves import evaluation_steps
from stages.training.objective import TokenRow

CONF = Path(__file__).resolve().parents[2] / "conf" / "axolotl"
PLACES = Places("models/demo/book_merged", "models/demo/styles/x/axolotl", "runs/axolotl/x")


@pytest.fixture
def job(axolotl_settings: Callable[..., Axolotl], axolotl_lora: Lora, axolotl_training: Training) -> Job:
    return Job(axolotl_settings(), axolotl_lora, axolotl_training, 13, num_train_rows=19)


def test_what_is_trained_and_with_which_numbers(job: Job) -> None:
    config = render(job, PLACES)
    assert config["base_model"] == "models/demo/book_merged"
    assert config["datasets"][0]["path"] == "models/demo/styles/x/axolotl/train.jsonl"
    assert config["test_datasets"][0]["path"] == "models/demo/styles/x/axolotl/validation.jsonl"
    assert (config["adapter"], config["load_in_4bit"]) == ("lora", False)
    assert (config["lora_r"], config["lora_alpha"], config["lora_target_modules"]) == (4, 8, ["q_proj", "v_proj"])
    assert (config["micro_batch_size"], config["gradient_accumulation_steps"], config["seed"]) == (4, 1, 13)
    assert (config["learning_rate"], config["lr_scheduler"], config["warmup_steps"]) == (1e-2, "cosine", 2)
    assert config["eval_steps"] == config["save_steps"] == 5  # 19 rows in batches of 4: an epoch


def test_on_the_cpu_nothing_needs_a_gpu(job: Job) -> None:
    config = render(replace(job, training=replace(job.training, bf16=True)), PLACES)
    assert [config[key] for key in (*KERNELS, "bf16", "fp16")] == [False] * 6
    assert config["attn_implementation"] == "sdpa"


def test_on_a_gpu_the_configs_precision_and_axolotls_own_choice_of_kernels(job: Job) -> None:
    settings = replace(job.settings, device="gpu", quantise=True)
    config = render(replace(job, settings=settings, training=replace(job.training, bf16=True)), PLACES)
    assert (config["bf16"], config["fp16"], config["adapter"], config["load_in_4bit"]) == (True, False, "qlora", True)
    assert not set(KERNELS) & set(config)


@pytest.mark.parametrize(("patience", "every", "expected"), [(0, 1.0, None), (2, 1.0, 2), (1, 0.5, 2)])
def test_patience_counts_epochs_here_and_evaluations_there(
    job: Job, patience: int, every: float, expected: int
) -> None:
    training = replace(job.training, patience=patience, checkpoint_every_epochs=every)
    assert render(replace(job, training=training), PLACES).get("early_stopping_patience") == expected


@pytest.mark.parametrize("num_rows", [1, 4, 5, 19])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_as_many_steps_and_evaluations_as_the_other_backend(job: Job, num_rows: int, accumulation: int) -> None:
    job = replace(job, num_train_rows=num_rows, training=replace(job.training, accumulation=accumulation))
    evaluated = range(job.steps_between_evaluations, job.num_steps + 1, job.steps_between_evaluations)
    assert list(evaluated) == evaluation_steps(job.num_steps_per_epoch, job.training.num_epochs, 1.0)


def test_options_go_through_but_not_over_what_is_ours(job: Job) -> None:
    settings = replace(job.settings, options={"chunked_cross_entropy": True}, plugins=["a.Plugin"])
    config = render(replace(job, settings=settings), PLACES)
    assert config["chunked_cross_entropy"] is True
    assert config["plugins"] == ["a.Plugin"]
    settings = replace(job.settings, options={"lora_r": 8, "chunked_cross_entropy": True})
    with pytest.raises(ConfigError, match=r"axolotl\.options: lora_r is set by groundtune"):
        render(replace(job, settings=settings), PLACES)


def test_a_pad_token_only_where_the_tokenizer_names_none(job: Job) -> None:
    assert "special_tokens" not in render(job, PLACES)
    assert render(replace(job, pad_token="</s>"), PLACES)["special_tokens"] == {"pad_token": "</s>"}


def test_the_bundle_holds_ids_and_labels_as_the_other_backend_has_them(job: Job, tmp_path: Path) -> None:
    rows = [TokenRow("a", [5, 6, 7, 8], 2), TokenRow("b", [9, 10], 1)]
    path = write_bundle(tmp_path, job, PLACES, rows, rows[1:])
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert lines == [
        {"input_ids": [5, 6, 7, 8], "attention_mask": [1, 1, 1, 1], "labels": [-100, -100, 7, 8]},
        {"input_ids": [9, 10], "attention_mask": [1, 1], "labels": [-100, 10]},
    ]
    assert len((tmp_path / "validation.jsonl").read_text().splitlines()) == 1
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(as_yaml(render(job, PLACES)))
    assert (
        "PATH=$PWD/.venv-axolotl/bin:$PATH axolotl train models/demo/styles/x/axolotl/axolotl.yml" in path.read_text()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "axolotl.device: 'tpu' is not one of cpu, gpu"),
        ({"silence_timeout_s": 0}, "silence_timeout_s must be above 0"),
        ({"verzion": "1"}, "axolotl.verzion: unknown key"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    profile = yaml.safe_load((CONF / "cpu.yaml").read_text())["axolotl"]
    with pytest.raises(ConfigError, match=message):
        parse_section(Axolotl, {**profile, **changes}, "axolotl")


def test_the_gpu_profile_is_the_original_one() -> None:
    profile = yaml.safe_load((CONF / "gpu.yaml").read_text())
    training = profile["train_style"]["training"]
    assert parse_section(Axolotl, profile["axolotl"], "axolotl").quantise
    assert profile["train_style"]["lora"]["r"] == 64
    assert (float(training["learning_rate"]), training["num_epochs"], training["max_length"]) == (2e-4, 3, 2048)
    assert (training["batch_size"], training["accumulation"]) == (4, 4)
