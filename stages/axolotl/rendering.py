"""Our configuration as axolotl's: the full YAML of a training on rows that are token ids already.

    {"input_ids": [3, 87, 12, 2], "attention_mask": [1, 1, 1, 1], "labels": [-100, -100, 12, 2]}

axolotl takes rows with these three columns as they are (https://docs.axolotl.ai/docs/dataset-formats/tokenized.html),
whatever `type` says: both backends train on the same ids and labels. Rows are neither packed nor cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from stages.axolotl.settings import Axolotl
from stages.core import schema
from stages.core.atomic import write_text
from stages.core.errors import ConfigError
from stages.core.jsonl import write_jsonl
from stages.training.objective import TokenRow

TRAIN, VALIDATION, CONFIG = "train.jsonl", "validation.jsonl", "axolotl.yml"
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
HEADER = "# Written by groundtune. By hand, from the repository's folder:\n#   PATH={bin}:$PATH axolotl train {path}\n"


@dataclass(frozen=True)
class Places:
    """What a rendered config reads and writes. data: the folder with the rows."""

    base: str
    data: str
    output: str


@dataclass(frozen=True)
class Job:
    """What is trained, but for the places. pad_token: one that the vocabulary has, where the tokenizer names none."""

    settings: Axolotl
    lora: schema.Lora
    training: schema.Training
    seed: int
    num_train_rows: int
    pad_token: str = ""

    @property
    def num_steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return ceil(ceil(self.num_train_rows / self.training.batch_size) / self.training.accumulation)

    @property
    def num_steps(self) -> int:
        return self.num_steps_per_epoch * self.training.num_epochs

    @property
    def steps_between_evaluations(self) -> int:
        return max(1, min(self.num_steps, round(self.training.checkpoint_every_epochs * self.num_steps_per_epoch)))


def render(job: Job, places: Places) -> dict[str, Any]:
    """axolotl's configuration. Raises ConfigError where `options` sets what groundtune sets."""
    config = _data(job, places) | _adapter(job) | _optimisation(job) | _schedule(job) | _device(job)
    if clash := sorted(set(config) & set(job.settings.options)):
        raise ConfigError(
            f"axolotl.options: {', '.join(clash)} is set by groundtune, from lora, training, seed and the profile; "
            "change it there"
        )
    return config | job.settings.options


def _data(job: Job, places: Places) -> dict[str, Any]:
    special = {"special_tokens": {"pad_token": job.pad_token}} if job.pad_token else {}
    return {
        "base_model": places.base,
        **special,
        "datasets": [{"path": f"{places.data}/{TRAIN}", "ds_type": "json", "split": "train", "type": None}],
        "test_datasets": [{"path": f"{places.data}/{VALIDATION}", "ds_type": "json", "split": "train", "type": None}],
        "val_set_size": 0,
        "dataset_prepared_path": f"{places.output}/prepared",
        "output_dir": places.output,
        "sequence_len": job.training.max_length,
        "excess_length_strategy": "raise",  # by default longer rows are dropped
        "sample_packing": False,
        "eval_sample_packing": False,
        "pad_to_sequence_len": False,
    }


def _adapter(job: Job) -> dict[str, Any]:
    return {
        "adapter": "qlora" if job.settings.quantise else "lora",
        "load_in_4bit": job.settings.quantise,
        "load_in_8bit": False,
        "lora_r": job.lora.r,
        "lora_alpha": job.lora.alpha,
        "lora_dropout": job.lora.dropout,
        "lora_target_modules": sorted(job.lora.modules),
    }


def _optimisation(job: Job) -> dict[str, Any]:
    training = job.training
    return {
        "seed": job.seed,
        "micro_batch_size": training.batch_size,
        "eval_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "num_epochs": training.num_epochs,
        "optimizer": job.settings.optimizer,
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.scheduler,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.activation_checkpointing,
    }


def _schedule(job: Job) -> dict[str, Any]:
    every = job.steps_between_evaluations
    patience = ceil(job.training.patience / job.training.checkpoint_every_epochs)
    return {
        "logging_steps": 1,
        "eval_steps": every,
        "save_steps": every,
        "save_total_limit": 2,  # the best one and the last one
        "load_best_model_at_end": True,
        **({"early_stopping_patience": patience} if patience else {}),
    }


def _device(job: Job) -> dict[str, Any]:
    """On the CPU float32 and no Triton kernels; bf16 and fp16 left unset would silently mean fp16."""
    plugins = {"plugins": list(job.settings.plugins)} if job.settings.plugins else {}
    if job.settings.device == "cpu":
        return {"bf16": False, "fp16": False, "attn_implementation": "sdpa", **dict.fromkeys(KERNELS, False), **plugins}
    return {"bf16": job.training.bf16, "fp16": False, "attn_implementation": "sdpa", **plugins}


def as_yaml(config: dict[str, Any]) -> str:
    """The text of a rendered config; keys keep their order."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def write_bundle(
    folder: Path, job: Job, places: Places, train_rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]
) -> Path:
    """Writes rows and YAML to `folder`; returns the path of the YAML."""
    config = folder / CONFIG
    write_jsonl(folder / TRAIN, map(_row, train_rows))
    write_jsonl(folder / VALIDATION, map(_row, eval_rows))
    venv = Path(job.settings.venv)
    programs = f"{venv if venv.is_absolute() else Path('$PWD') / venv}/bin"  # it starts the first python on the PATH
    header = HEADER.format(bin=programs, path=f"{places.data}/{CONFIG}")
    write_text(config, header + as_yaml(render(job, places)))
    return config


def _row(row: TokenRow) -> dict[str, list[int]]:
    return {"input_ids": row.input_ids, "attention_mask": [1] * len(row.input_ids), "labels": row.labels}
