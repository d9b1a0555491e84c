"""Supervised training of a LoRA adapter on tokenised rows: one harness for plain text and for completions.

    rows = [TokenRow("qa-0017", input_ids=[5, 7, 9, 2], num_trained=2)]   # loss on the last two tokens
    with train_lora(model, tokenizer, rows, eval_rows, config.lora, config.training, ...) as trained:
        trained.save(folder)

The best adapter by evaluation loss wins; training stops when it has not improved for `patience` epochs. Killed at any
moment and started again, it ends with the same bytes as if never killed: what a checkpoint holds is exact, and a
half-written one is not taken.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import launch, schema
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import fingerprint
from stages.core.seeding import seed_everything
from stages.training import checkpoints, lora
from stages.training.curves import CurveRow, evaluation_steps
from stages.training.objective import NextToken, Objective, Row

if TYPE_CHECKING:
    from stages.training.trainer import Progress

HARNESS_VERSION = 4  # raise it when the same inputs start to train differently: older checkpoints are then not taken
BYTES_PER_WEIGHT = 12  # of a checkpoint: the weight and Adam's two moments, float32


@dataclass(frozen=True)
class Trained:
    """A finished training. `model` holds the best adapter; figures depend on config and inputs alone, times do not."""

    model: Any
    curve: list[CurveRow]
    checkpoint: Path
    figures: dict[str, float] = field(default_factory=dict)

    def without_model(self) -> Trained:
        """The same to hand to another process, or to keep while the next one trains."""
        return replace(self, model=None)

    def save(self, folder: Path) -> None:
        """Writes the adapter in PEFT's format, the same bytes every time."""
        lora.copy_adapter(self.checkpoint, folder)


def check_rows(rows: Sequence[Row], max_length: int, what: str, objective: Objective) -> None:
    """Raises DataError where there are no rows, a row is too long, or a row has nothing to train on."""
    if not rows:
        raise DataError(f"there are no {what} rows: nothing to train or to evaluate on")
    for row in rows:
        try:
            objective.check(row, max_length)
        except DataError as error:
            raise DataError(f"{what} {error}") from error


@contextmanager
def train_lora(
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[Row],
    eval_rows: Sequence[Row],
    lora_config: schema.Lora,
    training: schema.Training,
    *,
    seed: int,
    base_sha256: str,
    checkpoint_root: Path,
    objective: Objective | None = None,
    also_trained: Sequence[str] = (),
    keep_checkpoints: bool = False,
    launched: launch.Launch | None = None,
) -> Iterator[Trained]:
    """Puts an adapter on `model` and trains it; the checkpoints go when the block succeeds.

    base_sha256: of the weights in `model`. checkpoint_root: the folder of this stage and domain. objective: what the
    rows are for; by default TokenRows and their next tokens. also_trained: modules of the model that are trained whole
    and saved in the adapter. keep_checkpoints: the caller discards them, once all that belongs together is done.
    launched: how the processes that train were launched (stages.core.launch); by default there is this one. They raise
    TrainingDone when they are done. Raises DataError for unusable rows, a NaN loss, a full disk, or another process at
    the same training.
    """
    objective, launched = objective or NextToken(), launched or launch.Launch()
    check_rows(train_rows, training.max_length, "training", objective)
    check_rows(eval_rows, training.max_length, "evaluation", objective)
    set_threads(training.num_threads)
    seed_everything(seed)
    model = lora.attach_lora(model, lora_config, also_trained)
    key = fingerprint(
        *(HARNESS_VERSION, lora_config, training, seed, base_sha256, _device_type(), lora.versions()),
        *(launched, launch.num_processes(launched)),
        *(type(objective).__name__, dict(objective.settings)),
        *([asdict(row) for row in rows] for rows in (train_rows, eval_rows)),  # type: ignore[call-overload]
    )
    folder = checkpoint_root / key[:32]
    with checkpoints.locked(folder) if launch.is_main() else nullcontext():
        progress = _train(model, tokenizer, train_rows, eval_rows, training, seed, folder, objective, launched)
        if launch.is_launched():
            raise launch.TrainingDone
        best = checkpoints.checkpoint_path(folder, progress.best_step)
        lora.load_weights(model, best)
        yield Trained(model.eval(), progress.rows, best, _figures(model, progress))
    if not keep_checkpoints:
        checkpoints.discard(folder)


def _device_type() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _figures(model: Any, progress: Progress) -> dict[str, float]:
    return {
        "best_eval_loss": progress.best_loss,
        "best_epoch": progress.best_row.epoch,
        "num_epochs_run": progress.rows[-1].epoch,
        "num_steps": progress.rows[-1].step,
        "num_train_tokens": progress.num_tokens,
        "num_trainable_parameters": lora.num_trainable(model),
    }


def set_threads(num_threads: int) -> None:
    """Applies the config's number of torch threads; 0 leaves torch's own choice."""
    import torch

    if num_threads:
        torch.set_num_threads(num_threads)


def _train(
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[Row],
    eval_rows: Sequence[Row],
    training: schema.Training,
    seed: int,
    folder: Path,
    objective: Objective,
    launched: launch.Launch,
) -> Progress:
    from datasets import Dataset
    from transformers import PrinterCallback

    from stages.training.trainer import Bar, Course, LoraTrainer, Progress

    found = launch.from_main(lambda: checkpoints.latest_complete(folder))
    step, progress = (found[0], Progress.from_dict(found[1])) if found else (0, Progress())
    if progress.finished:
        return progress
    if launched.kind != "single" and not launch.is_launched():
        raise DataError(f"{folder}: the launched processes have left no finished training; run again")
    num_steps_per_epoch = ceil(ceil(len(train_rows) / training.batch_size) / training.accumulation)
    course = Course(
        folder,
        progress,
        evaluation_steps(num_steps_per_epoch, training.num_epochs, training.checkpoint_every_epochs),
        patience=ceil(training.patience / training.checkpoint_every_epochs),
        checkpoint_bytes=BYTES_PER_WEIGHT * lora.num_trainable(model),
    )
    by_length = sorted(eval_rows, key=lambda row: len(row.input_ids))  # the least padding
    trainer = LoraTrainer(
        model=model,
        args=_arguments(training, seed, folder, launch.accumulation_of_each(launched, training)),
        objective=objective,
        train_dataset=Dataset.from_dict(objective.columns(train_rows)),
        eval_dataset=Dataset.from_dict(objective.columns(by_length)),
        processing_class=tokenizer,
        callbacks=[course],
    )
    course.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    if sys.stderr.isatty() and launch.is_main():
        trainer.add_callback(Bar())
    checkpoints.require_space(folder, course.checkpoint_bytes)
    trainer.train(resume_from_checkpoint=str(checkpoints.checkpoint_path(folder, step)) if step else None)
    return progress


def _arguments(training: schema.Training, seed: int, folder: Path, accumulation: int) -> Any:
    """trl's configuration of a process. Evaluating, saving and stopping are Course's: trl's own strategies are off."""
    import torch
    from transformers import SchedulerType
    from trl import SFTConfig

    if training.scheduler not in list(SchedulerType):
        raise ConfigError(f"training.scheduler: {training.scheduler!r} is not one of {', '.join(SchedulerType)}")
    on_cpu = not torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(folder),
        seed=seed,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_steps,
        num_train_epochs=training.num_epochs,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=accumulation,
        max_length=training.max_length,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=training.bf16,  # trl's default is True, on CPU too
        activation_checkpointing=training.activation_checkpointing,  # trl's default is True
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,  # all are the objective's
        dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokenised, cut and labelled
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide a NaN loss
        disable_tqdm=True,  # Bar instead
        report_to="none",
        # Else gradients of what is read outside of the model's own forward (a head) would be counted as unused.
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one device: torch's DataParallel would multiply the batch by the GPUs
    return arguments
