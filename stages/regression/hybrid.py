"""The hybrid loss: cross-entropy of the answer's tokens + weight x the distance of the number from the right one.

Both come out of one forward pass over the prompt and the tree of values (regression.readout). The number is read as
an expectation over whole values, or by a small head on the hidden state from which the number is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from stages.core.errors import DataError
from stages.generation.perplexity import IGNORED
from stages.regression.answer import format_value, value_texts
from stages.regression.losses import DigitLoss, distribution_loss, point_loss
from stages.regression.number_head import read_head
from stages.regression.pair_prompts import PairRenderer
from stages.regression.readout import Readout, run_window
from stages.regression.settings import LossSettings
from stages.regression.task import RegressionTask
from stages.regression.value_tree import ValueTree, build_tree
from stages.training.objective import Part


@dataclass(frozen=True)
class PairRow:
    """A prompt, the right answer, and the right value. value_number: of the values that can be written."""

    id: str
    input_ids: list[int]
    answer_ids: list[int]
    value: float
    value_number: int


def tree_of(renderer: PairRenderer, max_nodes: int) -> ValueTree:
    """The tree of a task's values, as a tokenizer writes them."""
    texts = value_texts(renderer.task)
    rationale = "A" if renderer.task.rationale_field else ""
    answers = [renderer.answer_ids(float(text), rationale) for text in texts]
    return build_tree([float(text) for text in texts], answers, max_nodes)


def to_unit(task: RegressionTask, value: Any) -> Any:
    """A value, or a tensor of values, on the scale where the task's range is [-1, 1]."""
    return (value - task.low) / (task.high - task.low) * 2 - 1


def from_unit(task: RegressionTask, value: Any) -> Any:
    """The reverse of `to_unit`."""
    return (value + 1) / 2 * (task.high - task.low) + task.low


class HybridLoss:
    """The objective of training.sft over PairRows, with the parts `token` and `number`."""

    def __init__(self, renderer: PairRenderer, tokenizer: Any, loss: LossSettings) -> None:
        self.task, self.loss = renderer.task, loss
        self.readout = Readout(tree_of(renderer, loss.max_nodes))
        self.leaves = to_unit(self.task, self.readout.leaves)
        self.weights: Mapping[str, float] = {"token": 1.0, "number": loss.weight}
        self.log_gradients_every = loss.log_gradients_every
        self.settings: Mapping[str, Any] = {**asdict(loss), "prompt_hash": renderer.hash}
        self._number_of = {text: n for n, text in enumerate(value_texts(self.task))}
        texts = [[tokenizer.decode([token]) for token in b.tokens] for b in self.readout.tree.branchings]
        self._digits = DigitLoss(self.readout, texts)

    def row(self, id: str, prompt_ids: list[int], answer_ids: list[int], value: float) -> PairRow:
        """A row to train on."""
        return PairRow(id, prompt_ids, answer_ids, value, self._number_of[format_value(self.task, value)])

    def check(self, row: PairRow, max_length: int) -> None:
        if (length := len(row.input_ids) + len(row.answer_ids)) > max_length:
            raise DataError(f"row {row.id}: {length} tokens, max_length is {max_length}")

    def columns(self, rows: Sequence[PairRow]) -> dict[str, list[Any]]:
        return {
            "input_ids": [row.input_ids for row in rows],
            "answer_ids": [row.answer_ids for row in rows],
            "value": [to_unit(self.task, row.value) for row in rows],
            "leaf": [self.readout.tree.leaf_of[row.value_number] for row in rows],
        }

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch of regression.readout, with value and leaf [B]."""
        prompts = [feature["input_ids"] for feature in features]
        answers = [feature["answer_ids"] for feature in features]
        lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return {
            **self.readout.batch(prompts, answers),
            "value": torch.tensor([feature["value"] for feature in features], dtype=torch.float32),
            "leaf": torch.tensor([feature["leaf"] for feature in features]),
            "num_tokens": torch.tensor(lengths),
            "num_window": torch.full((len(prompts),), self._num_window(answers)),
        }

    def _num_window(self, answers: Sequence[Sequence[int]]) -> int:
        """Columns of the window: where the prompts end, the tree, and the longest rest of an answer."""
        tree = self.readout.tree
        return 1 + tree.num_nodes + max(len(answer) - 1 - len(tree.follow(answer)) for answer in answers)

    def parts(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Part]:
        with_head = self.loss.readout == "head"
        output = run_window(model, batch, int(batch["num_window"][0]), hidden=with_head)
        logits = output.logits.float()  # [B, W, V]
        path = batch["path_columns"][:, :, None].expand(-1, -1, logits.shape[-1])
        labels = batch["labels"].flatten()
        tokens = cross_entropy(logits.gather(1, path).flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum")
        if with_head:
            number = point_loss(self.loss.kind, self._read_head(model, output, batch), batch["value"])
        else:
            number = self._number_loss(logits, batch)
        return {
            name: Part(total, n)
            for (name, n), total in zip(self.num_items(batch).items(), (tokens, number.sum()), strict=True)
        }

    def num_items(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tokens of the answers; rows."""
        return {
            "token": batch["labels"].ne(IGNORED).sum(),
            "number": torch.tensor(len(batch["labels"])).to(batch["labels"]),
        }

    def _number_loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        choices = self.readout.choice_log_probs(logits)
        if self.loss.kind == "ntl_was":
            return self._digits(choices, batch["leaf"])
        log_probs = self.readout.leaf_log_probs(choices)
        return distribution_loss(self.loss.kind, log_probs, self.leaves.to(logits.device), batch["value"])

    def _read_head(self, model: Any, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        first = batch["input_ids"].shape[1] - int(batch["num_window"][0])
        numbers: torch.Tensor = read_head(model, output.hidden_states[-1][:, first + self.readout.first_column])
        return numbers
