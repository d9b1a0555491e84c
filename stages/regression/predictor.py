"""From prompts to distributions over values: batched, one forward pass a batch, no loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.core.progress import track
from stages.regression.distribution import Predictions
from stages.regression.hybrid import from_unit, tree_of
from stages.regression.number_head import NAME, read_head
from stages.regression.pair_prompts import PairRenderer
from stages.regression.readout import Readout, run_window
from stages.regression.task import RegressionTask

MAX_NODES = 64  # of the tree: with two decimals every value is a leaf of its own


class Predictor:
    """Predicts with one model; `model` may be changed (base, one adapter after another) between calls."""

    def __init__(self, model: Any, tokenizer: Any, task: RegressionTask, batch_size: int) -> None:
        self.model, self.task, self.batch_size = model, task, batch_size
        self.readout = Readout(tree_of(PairRenderer(task, tokenizer), MAX_NODES))

    def predict(
        self, ids: Sequence[str], prompts: Sequence[Sequence[int]], description: str = "predict"
    ) -> Predictions:
        """prompts: token ids, up to where the answer begins. Rows come back in their order."""
        num_leaves = len(self.readout.leaves)
        probabilities = np.zeros((len(prompts), num_leaves))
        greedy, head = np.zeros(len(prompts)), np.zeros(len(prompts))
        order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))  # least padding, most memory first
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for rows in track(batches, description, len(batches)):
            probabilities[rows], greedy[rows], head[rows] = self._run([prompts[row] for row in rows])
        values = np.array(self.readout.tree.leaves)
        return Predictions(list(ids), values, probabilities, greedy, head if self._has_head else None)

    @property
    def _has_head(self) -> bool:
        return any(name.endswith(NAME) for name, _ in self.model.named_modules())

    def _run(self, prompts: list[Sequence[int]]) -> tuple[Any, Any, Any]:
        import torch

        batch = {name: column.to(self.model.device) for name, column in self.readout.batch(prompts).items()}
        window = 1 + self.readout.tree.num_nodes
        with torch.inference_mode():
            output = run_window(self.model, batch, window, hidden=self._has_head)
            choices = self.readout.choice_log_probs(output.logits)
            probabilities = self.readout.leaf_log_probs(choices).double().softmax(-1)
            greedy = self.readout.leaves[self.readout.greedy(choices).cpu()]
            head = torch.zeros(len(prompts))
            if self._has_head:
                first = batch["input_ids"].shape[1] - window
                state = output.hidden_states[-1][:, first + self.readout.first_column]
                head = from_unit(self.task, read_head(self.model, state)).float().cpu()
        return probabilities.cpu().numpy(), greedy.numpy(), head.numpy()
