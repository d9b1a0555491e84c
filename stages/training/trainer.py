"""trl's SFTTrainer with what both LoRA stages need on top. Imports torch and trl: import it inside functions.

- The loss comes from an objective and is exact under accumulation: each part's sum over a whole step divided by the
  number of its items in that step, not a mean of means.
- The evaluation loss is the mean over items, not over batches.
- The order of rows depends on seed and epoch alone, so that a resumed epoch continues where it was.
- Dropout depends on seed, step and batch alone, so that it is the same whichever of several processes has the batch.
- Several processes take turns at the batches that one process would accumulate; rows that only fill up the last round
  count for nothing. A step has the same rows and the same loss however many they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import ProgressCallback, TrainerCallback
from trl import SFTTrainer

from stages.core import launch
from stages.core.errors import DataError
from stages.core.progress import evaluated
from stages.core.seeding import derived_random
from stages.training import checkpoints
from stages.training.curves import CurveRow
from stages.training.objective import Objective

FILLER = "is_filler"
POOL_BATCHES = 8  # rows of at least so many batches are sorted by length together: little padding, yet mixed steps


class LengthGrouped(Sampler[int]):
    """Row numbers in a new order each epoch; neighbours, which share a step, have similar lengths.

    A step's batches have about the same width then, and processes that share the step out wait little for each other.
    The order depends on the rows of a step, not on how many processes there are.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, accumulation: int = 1, num_filler: int = 0
    ) -> None:
        self.lengths, self.batch_size, self.accumulation, self.seed = lengths, batch_size, accumulation, seed
        self.filler, self.epoch = range(len(lengths), len(lengths) + num_filler), 0  # filler is always the last

    def __len__(self) -> int:
        return len(self.lengths) + len(self.filler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = derived_random(self.seed, "row order", str(self.epoch))
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        step_size = self.batch_size * self.accumulation
        pool_size = math.ceil(POOL_BATCHES / self.accumulation) * step_size
        whole = len(order) // step_size * step_size  # the last, smaller step stays the last, and so does its last batch
        rest, full = order[whole:], len(order) // self.batch_size * self.batch_size - whole
        steps: list[list[int]] = []
        for start in range(0, whole, pool_size):
            pool = self._by_length(order[start : min(start + pool_size, whole)])
            steps += [pool[k : k + step_size] for k in range(0, len(pool), step_size)]
        rng.shuffle(steps)
        return iter(
            [row for step in steps for row in step] + self._by_length(rest[:full]) + rest[full:] + list(self.filler)
        )

    def _by_length(self, rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda row: self.lengths[row])


class FilledUp(Dataset[dict[str, Any]]):
    """Rows, and as many copies of the first as make the last round of batches, one for each process, complete."""

    def __init__(self, rows: Any, batch_size: int, num_processes: int) -> None:
        self.rows, self.num_rows = rows, len(rows)
        self.num_filler = -self.num_rows % (batch_size * num_processes)

    def __len__(self) -> int:
        return self.num_rows + self.num_filler

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.rows[number if number < self.num_rows else 0], FILLER: number >= self.num_rows}


def is_counted(batch: Mapping[str, torch.Tensor]) -> bool:
    """False for a batch of nothing but filler rows."""
    return bool(batch["num_tokens"].any())


@dataclass
class Progress:
    """What is kept with every checkpoint beside the trainer's own state."""

    rows: list[CurveRow] = field(default_factory=list)
    num_tokens: int = 0  # non-pad tokens trained on
    best_step: int = 0
    best_loss: float = math.inf
    num_worse: int = 0  # evaluations since the best one
    finished: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        return cls(**{**values, "rows": [CurveRow(**row) for row in values["rows"]]})

    @property
    def best_row(self) -> CurveRow:
        return next(row for row in self.rows if row.step == self.best_step)


class LoraTrainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """Trains for an objective; writes only what a checkpoint needs."""

    def __init__(self, *args: Any, objective: Objective, **kwargs: Any) -> None:
        super().__init__(*args, data_collator=self._collate, **kwargs)
        self.objective = objective
        self.num_tokens = 0  # non-pad tokens since somebody last set it to 0; after an evaluation, of all processes
        self.step_of_place, self.place = -1, 0  # of the last batch
        self.gradients = PartGradients([p for p in self.model.parameters() if p.requires_grad])

    def _get_dataloader(self, dataset: Any, description: str, batch_size: int, **kwargs: Any) -> Any:
        filled_up = FilledUp(dataset, batch_size, self.accelerator.num_processes)
        return super()._get_dataloader(filled_up, description, batch_size, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        lengths = [len(ids) for ids in train_dataset.rows["input_ids"]]
        args, num_processes = self.args, self.accelerator.num_processes
        accumulation = args.gradient_accumulation_steps * num_processes
        return LengthGrouped(
            lengths, args.per_device_train_batch_size, args.seed, accumulation, train_dataset.num_filler
        )

    def _collate(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The objective's batch of the rows that are no filler; where all are, a batch without tokens."""
        filler = [feature.pop(FILLER) for feature in features]
        real = [feature for feature, is_filler in zip(features, filler, strict=True) if not is_filler]
        batch = self.objective.collate(real or features)
        return batch if real else {**batch, "num_tokens": torch.zeros_like(batch["num_tokens"])}

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """[P]: the items of each part in the batches of one step, on all devices."""
        if not batch_samples:
            return None
        counts = [
            torch.stack(list(self.objective.num_items(batch).values())) * is_counted(batch) for batch in batch_samples
        ]
        total: torch.Tensor = self.accelerator.reduce(torch.stack(counts).sum(0).to(device), "sum")
        return total

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Seeds dropout by the place of the batch among those of all processes."""
        step, process = self.state.global_step, self.accelerator.process_index
        self.place = self.place + self.accelerator.num_processes if step == self.step_of_place else process
        self.step_of_place = step
        torch.manual_seed(derived_random(self.args.seed, "dropout", str(step), str(self.place)).getrandbits(63))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the parts' means; with `num_items_in_batch` [P], of their share of the step's mean."""
        parts, counted = self.objective.parts(model, inputs), is_counted(inputs)
        counts = [part.num_items for part in parts.values()] if num_items_in_batch is None else num_items_in_batch
        means = {name: part.total * counted / count for (name, part), count in zip(parts.items(), counts, strict=True)}
        if model.training:
            self.num_tokens += int(inputs["num_tokens"].sum())
            every = self.objective.log_gradients_every
            is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled  # then no process has a whole gradient
            if every and not is_sharded and self.state.global_step % every == 0:
                self.gradients.add(means)
        # Gradients are averaged over processes, but each has only its share of the step's mean.
        scale = self.accelerator.num_processes if model.training else 1
        return scale * sum(self.objective.weights[name] * mean for name, mean in means.items())

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """`eval_loss`, and `eval_<part>` of each part: means over all items of the evaluation rows."""
        self.model.eval()
        totals = torch.zeros(len(self.objective.weights), 2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for inputs in self.get_eval_dataloader():
                parts = self.objective.parts(self.model_wrapped, self._prepare_inputs(inputs)).values()
                found = torch.stack([torch.stack([part.total.double(), part.num_items.double()]) for part in parts])
                totals += found * is_counted(inputs)
        totals = self.accelerator.reduce(totals, "sum")
        num_tokens = torch.tensor(self.num_tokens, device=self.args.device)
        self.num_tokens = int(self.accelerator.reduce(num_tokens, "sum"))
        means = dict(zip(self.objective.weights, (totals[:, 0] / totals[:, 1]).tolist(), strict=True))
        metrics = {"eval_loss": sum(self.objective.weights[name] * mean for name, mean in means.items())}
        metrics |= {f"eval_{name}": mean for name, mean in means.items()}
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # changes control in place
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Neither the tokenizer nor a pickle of the arguments; "auto" would look the base model up on the hub.
        if self.args.should_save:
            self.model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: adapter.json says what it is."""

    def floating_point_ops(self, inputs: Any) -> int:
        """0: counting parameters at every step costs more than it tells."""
        return 0


class PartGradients:
    """The gradient norm that each part of a loss has on its own, before its weight; summed over accumulated batches."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.sums: dict[str, list[torch.Tensor]] = {}

    def add(self, means: Mapping[str, torch.Tensor]) -> None:
        """Adds the gradients of one batch's share of each part's mean; the graph stays for the real backward pass."""
        for name, mean in means.items():
            gradients = torch.autograd.grad(mean, self.parameters, retain_graph=True, allow_unused=True)
            known = [torch.zeros(()) if g is None else g.detach().float() for g in gradients]
            before = self.sums.get(name)
            self.sums[name] = known if before is None else [a + b for a, b in zip(before, known, strict=True)]

    def take(self, accelerator: Any) -> dict[str, float]:
        """Part -> norm of what all processes have added since the last time; empty where nothing was."""
        norms = {}
        for name, sums in self.sums.items():
            whole = accelerator.reduce(sums, "sum")
            norms[name] = float(torch.stack([g.norm() for g in whole]).norm())
        self.sums = {}
        return norms


class Course(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at given steps, keeps the curve and the best checkpoint, stops early, and stops at NaN."""

    def __init__(self, folder: Path, progress: Progress, steps: Sequence[int], patience: int, checkpoint_bytes: int):
        self.folder, self.progress, self.steps, self.patience = folder, progress, frozenset(steps), patience
        self.checkpoint_bytes, self.last_step = checkpoint_bytes, max(steps)
        self.trainer: Any = None  # set once the trainer exists
        self._start_interval()

    def _start_interval(self) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.part_norms: dict[str, list[float]] = {}
        self.learning_rate = self.duration_s = 0.0
        self.started_s = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.num_tokens = 0
        self._start_interval()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, norm in self.trainer.gradients.take(self.trainer.accelerator).items():
            self.part_norms.setdefault(name, []).append(norm)
        control.should_evaluate = control.should_save = state.global_step in self.steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise DataError(
                    f"training stopped at step {state.global_step}: {name} is {logs[name]}; lower the learning rate, "
                    "or look for broken rows; the last checkpoint before it is kept"
                )
        self.losses.append(logs["loss"])
        self.grad_norms.append(logs["grad_norm"])
        self.learning_rate = logs["learning_rate"]
        self.duration_s = time.perf_counter() - self.started_s  # here the device has finished the step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        step, eval_loss, progress = state.global_step, metrics["eval_loss"], self.progress
        if not math.isfinite(eval_loss):
            raise DataError(f"training stopped at step {step}: eval_loss is {eval_loss}; lower the learning rate")
        progress.rows.append(self._row(step, state.epoch, metrics))
        progress.num_tokens += self.trainer.num_tokens
        if eval_loss < progress.best_loss:
            progress.best_step, progress.best_loss, progress.num_worse = step, eval_loss, 0
        else:
            progress.num_worse += 1
        stop_early = 0 < self.patience <= progress.num_worse
        progress.finished = stop_early or step >= self.last_step
        control.should_training_stop = progress.finished
        checkpoints.require_space(self.folder, self.checkpoint_bytes)
        evaluated(step, eval_loss)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each process has its random state in the checkpoint
        if launch.is_main():
            checkpoints.mark_complete(self.folder, state.global_step, asdict(self.progress))
            checkpoints.keep_only(self.folder, self.progress.best_step, state.global_step)
        self.trainer.num_tokens = 0
        self._start_interval()

    def _row(self, step: int, epoch: float, metrics: Mapping[str, float]) -> CurveRow:
        num_steps = len(self.losses)
        parts = {name: value for name, value in metrics.items() if name != "eval_loss"} if len(metrics) > 2 else {}
        norms = {f"grad_norm_{name}": sum(values) / len(values) for name, values in self.part_norms.items()}
        return CurveRow(
            step=step,
            epoch=epoch,
            train_loss=sum(self.losses) / num_steps,
            eval_loss=metrics["eval_loss"],
            learning_rate=self.learning_rate,
            grad_norm=sum(self.grad_norms) / num_steps,
            tokens_per_s=self.trainer.num_tokens / self.duration_s,
            parts={**parts, **norms},
        )


class Bar(ProgressCallback):  # type: ignore[misc]
    """A progress bar with the loss at its end; transformers' own prints a line for every step that is logged."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}", epoch=f"{state.epoch:.2f}")
