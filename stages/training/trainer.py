"""trl's SFTTrainer with what both LoRA stages need on top. Imports torch and trl: import it inside functions.

- The loss comes from an objective and is exact under accumulation: each part's sum over a whole step divided by the
  number of its items in that step, not a mean of means.
- The evaluation loss is the mean over items, not over batches.
- The order of rows depends on seed and epoch alone, so that a resumed epoch continues where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import ProgressCallback, TrainerCallback
from trl import SFTTrainer

from stages.core.errors import DataError
from stages.core.progress import evaluated
from stages.core.seeding import derived_random
from stages.training import checkpoints
from stages.training.curves import CurveRow
from stages.training.objective import Objective

POOL_BATCHES = 8  # rows of so many batches are sorted by length together: little padding, yet mixed batches


class LengthGrouped(Sampler[int]):
    """Row numbers in a new order each epoch; neighbours, which share a batch, have similar lengths."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = derived_random(self.seed, "row order", str(self.epoch))
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        whole = len(order) // self.batch_size * self.batch_size  # the last, smaller batch stays the last
        rest, pool_size = order[whole:], POOL_BATCHES * self.batch_size
        batches: list[list[int]] = []
        for start in range(0, whole, pool_size):
            pool = sorted(order[start : min(start + pool_size, whole)], key=lambda row: self.lengths[row])
            batches += [pool[k : k + self.batch_size] for k in range(0, len(pool), self.batch_size)]
        rng.shuffle(batches)
        return iter([row for batch in batches for row in batch] + rest)


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
        super().__init__(*args, data_collator=objective.collate, **kwargs)
        self.objective = objective
        self.num_tokens = 0  # non-pad tokens since somebody last set it to 0
        self.gradients = PartGradients([p for p in self.model.parameters() if p.requires_grad])

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in dataset["input_ids"]]
        return LengthGrouped(lengths, self.args.per_device_train_batch_size, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """[P]: the items of each part in the batches of one step, on all devices."""
        if not batch_samples:
            return None
        counts = [torch.stack(list(self.objective.num_items(batch).values())) for batch in batch_samples]
        total: torch.Tensor = self.accelerator.reduce(torch.stack(counts).sum(0).to(device), "sum")
        return total

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the parts' means; with `num_items_in_batch` [P], of their share of the step's mean."""
        parts = self.objective.parts(model, inputs)
        counts = [part.num_items for part in parts.values()] if num_items_in_batch is None else num_items_in_batch
        means = {name: part.total / count for (name, part), count in zip(parts.items(), counts, strict=True)}
        if model.training:
            self.num_tokens += int(inputs["num_tokens"].sum())
            every = self.objective.log_gradients_every
            if every and self.state.global_step % every == 0:
                self.gradients.add(means)
        return sum(self.objective.weights[name] * mean for name, mean in means.items())

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """`eval_loss`, and `eval_<part>` of each part: means over all items of the evaluation rows."""
        self.model.eval()
        totals = torch.zeros(len(self.objective.weights), 2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for inputs in self.get_eval_dataloader():
                parts = self.objective.parts(self.model_wrapped, self._prepare_inputs(inputs)).values()
                totals += torch.stack([torch.stack([part.total.double(), part.num_items.double()]) for part in parts])
        totals = self.accelerator.reduce(totals, "sum")
        means = dict(zip(self.objective.weights, (totals[:, 0] / totals[:, 1]).tolist(), strict=True))
        metrics = {"eval_loss": sum(self.objective.weights[name] * mean for name, mean in means.items())}
        metrics |= {f"eval_{name}": mean for name, mean in means.items()}
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # changes control in place
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Neither the tokenizer nor a pickle of the arguments; "auto" would look the base model up on the hub.
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

    def take(self) -> dict[str, float]:
        """Part -> norm of what was added since the last time; empty where nothing was."""
        norms = {name: float(torch.stack([g.norm() for g in sums]).norm()) for name, sums in self.sums.items()}
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
        for name, norm in self.trainer.gradients.take().items():
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
