"""Prompts and the tree of values in one batch, and the distribution over values out of its logits.

Columns of a batch; prompts are padded on the left, so that the tree stands in the same columns of every row:

    [pad  prompt | tree | rest of the right answer]      the rest only in training
                ^ ------------------------------- the window: the columns whose logits are needed

Shapes: B rows, S columns, M nodes, W = 1 + M + rest columns of the window, V tokens, N branchings, K choices, L leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stages.generation.perplexity import IGNORED
from stages.regression.value_tree import ValueTree


class Readout:
    """Batches for one tree, and what to read off them."""

    def __init__(self, tree: ValueTree) -> None:
        self.tree = tree
        num_choices = max(len(branching.tokens) for branching in tree.branchings)
        padded = [b.tokens + [b.tokens[0]] * (num_choices - len(b.tokens)) for b in tree.branchings]
        self._columns = torch.tensor([b.node + 1 for b in tree.branchings])  # [N]; ROOT -> 0
        self.first_column = int(self._columns.min())  # of the window: from where the number is written
        self._choices = torch.tensor(padded)  # [N, K] token ids
        sizes = torch.tensor([len(b.tokens) for b in tree.branchings])
        self.absent = torch.arange(num_choices) >= sizes[:, None]  # [N, K]: choices that there are not
        self._steps, self._no_step = self._leaf_steps(num_choices)
        self.leaves = torch.tensor(tree.leaves)  # [L]
        self.chosen = torch.full((len(tree.paths), len(tree.branchings)), -1)  # [L, N]: choices of a leaf, -1: none
        for leaf, path in enumerate(tree.paths):
            for branching, choice in path:
                self.chosen[leaf, branching] = choice

    def _leaf_steps(self, num_choices: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Per leaf, its choices as indices into the flattened [N, K]; and where there is none. Both [L, longest]."""
        longest = max(map(len, self.tree.paths))
        flat = [[branching * num_choices + choice for branching, choice in path] for path in self.tree.paths]
        steps = torch.tensor([path + [0] * (longest - len(path)) for path in flat])
        none = torch.arange(longest) >= torch.tensor([len(path) for path in flat])[:, None]
        return steps, none

    def batch(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]] = ()) -> dict[str, torch.Tensor]:
        """The model's inputs, on the CPU. answers: token ids of the right answers, to train on (else none).

        input_ids, position_ids: [B, S]; attention_mask: bool [B, 1, S, S]. With answers also, for each of their
        tokens: path_columns [B, A], the column of the window whose logits predict it, and labels [B, A].
        """
        tree = self.tree
        paths = [tree.follow(answer) for answer in answers]
        rests = [answer[len(path) : -1] for answer, path in zip(answers, paths, strict=True)]
        width, num_rest = max(map(len, prompts)), max(map(len, rests), default=0)
        start, size = width, width + tree.num_nodes + num_rest
        ids = torch.zeros(len(prompts), size, dtype=torch.long)
        positions = torch.zeros_like(ids)
        mask = torch.eye(size, dtype=torch.bool).repeat(len(prompts), 1, 1)  # what pads see does not matter
        mask[:, :width, :width] |= torch.ones(width, width, dtype=torch.bool).tril()
        mask[:, start:, :width] = True
        mask[:, start : start + tree.num_nodes, start : start + tree.num_nodes] = torch.from_numpy(tree.sees)
        ids[:, start : start + tree.num_nodes] = torch.tensor(tree.tokens)
        depths = torch.tensor(tree.depths)
        for row, prompt in enumerate(prompts):
            pad = width - len(prompt)
            ids[row, pad:width] = torch.tensor(prompt)
            positions[row, pad:width] = torch.arange(len(prompt))
            positions[row, start : start + tree.num_nodes] = len(prompt) - 1 + depths
            mask[row, pad:, :pad] = False
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask[:, None]}
        if not answers:
            return inputs
        first = start + tree.num_nodes
        for row, (path, rest) in enumerate(zip(paths, rests, strict=True)):
            # the tokens of the right answer that are no nodes follow its last node, in a line
            line = slice(first, first + len(rest))
            ids[row, line] = torch.tensor(rest, dtype=torch.long)
            positions[row, line] = len(prompts[row]) + len(path) + torch.arange(len(rest))
            mask[row, line, [start + node for node in path]] = True
            mask[row, line, line] |= torch.ones(len(rest), len(rest), dtype=torch.bool).tril()
        return {**inputs, **self._targets(answers, paths)}

    def _targets(self, answers: Sequence[Sequence[int]], paths: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, answers))
        columns = torch.zeros(len(answers), longest, dtype=torch.long)
        labels = torch.full((len(answers), longest), IGNORED)
        first = 1 + self.tree.num_nodes
        for row, (answer, path) in enumerate(zip(answers, paths, strict=True)):
            line = [0, *(node + 1 for node in path), *range(first, first + len(answer) - 1 - len(path))]
            columns[row, : len(answer)] = torch.tensor(line)
            labels[row, : len(answer)] = torch.tensor(answer)
        return {"path_columns": columns, "labels": labels}

    def choice_log_probs(self, window: torch.Tensor) -> torch.Tensor:
        """[B, N, K]: log probability of each choice among those that the grammar allows; -inf where there is none.

        window: logits [B, W, V].
        """
        device = window.device
        chosen = window[:, self._columns.to(device)]  # [B, N, V]
        index = self._choices.to(device).expand(len(window), -1, -1)
        logits = chosen.gather(-1, index).float().masked_fill(self.absent.to(device), -torch.inf)
        return logits.log_softmax(-1)

    def leaf_log_probs(self, choices: torch.Tensor) -> torch.Tensor:
        """[B, L] from `choice_log_probs`: the log probabilities of the leaves; they add up to 1."""
        device = choices.device
        steps = choices.flatten(1)[:, self._steps.to(device)]  # [B, L, longest]
        return steps.masked_fill(self._no_step.to(device), 0.0).sum(-1)

    def greedy(self, choices: torch.Tensor) -> torch.Tensor:
        """[B] leaf numbers: the likeliest choice at every branching, as greedy constrained decoding takes it."""
        chosen = self.chosen.to(choices.device)  # [L, N]
        agrees = (chosen == choices.argmax(-1)[:, None]) | (chosen < 0)  # [B, L, N]
        return agrees.all(-1).int().argmax(-1)


def run_window(model: Any, batch: Mapping[str, torch.Tensor], num_columns: int, hidden: bool = False) -> Any:
    """The model's output for a batch: logits [B, W, V] of the last `num_columns` columns; if asked, hidden states."""
    return model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=num_columns,
        output_hidden_states=hidden,
    )
