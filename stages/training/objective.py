"""What a row is trained for: how rows become batches, and which losses come out of them.

A loss has one or more parts, each a sum over its own items (tokens, rows) times a weight. An optimizer step divides
each sum by the items of all its batches, so that accumulating 4 batches of 4 rows is one batch of 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from stages.core.errors import DataError
from stages.generation.perplexity import IGNORED

if TYPE_CHECKING:
    import torch


class Row(Protocol):
    """A dataclass; `input_ids` orders rows by length."""

    @property
    def id(self) -> str: ...
    @property
    def input_ids(self) -> list[int]: ...


@dataclass(frozen=True)
class TokenRow:
    """Token ids; the loss falls on the last `num_trained` of them (the first token of a row is never predicted)."""

    id: str
    input_ids: list[int]
    num_trained: int

    @property
    def labels(self) -> list[int]:
        num_masked = len(self.input_ids) - self.num_trained
        return [IGNORED] * num_masked + self.input_ids[num_masked:]


@dataclass(frozen=True)
class Part:
    """A part of a loss over one batch: the sum over its items, and how many they are."""

    total: torch.Tensor
    num_items: torch.Tensor


class Objective(Protocol):
    """Rows to columns to batches to parts of a loss. Nothing of it is trained; it has no state."""

    settings: Mapping[str, Any]  # JSON-able: with the class's name, all that the loss depends on
    weights: Mapping[str, float]  # part -> its weight in the loss
    log_gradients_every: int  # steps between measuring the norm of each part's gradient; 0: never

    def check(self, row: Any, max_length: int) -> None:
        """Raises DataError for a row that cannot be trained on."""

    def columns(self, rows: Sequence[Any]) -> dict[str, list[Any]]:
        """The dataset; `input_ids` among its columns."""

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of the dataset's rows: what `parts` needs, and num_tokens [B], padding not counted."""

    def parts(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Part]:
        """The parts of the loss, by the names in `weights`."""

    def num_items(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The items of each part, without running the model."""


class NextToken:
    """Mean negative log-likelihood of the trained tokens of TokenRows.

    Computed at trained positions only: trl's fused head computes every position's logits where there is no Triton
    (1.6 times slower on CPU), and its chunked loss does not take peft. Right padding needs no attention mask under
    causal attention: no token sees what follows it.
    """

    settings: Mapping[str, Any] = {}
    weights: Mapping[str, float] = {"token": 1.0}
    log_gradients_every = 0

    def check(self, row: TokenRow, max_length: int) -> None:
        if len(row.input_ids) > max_length:
            raise DataError(f"row {row.id}: {len(row.input_ids)} tokens, max_length is {max_length}")
        if min(row.num_trained, len(row.input_ids) - 1) < 1:
            raise DataError(f"row {row.id}: every label is masked, so there is nothing to learn from it")

    def columns(self, rows: Sequence[TokenRow]) -> dict[str, list[Any]]:
        return {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids and labels, int64 [B, T]."""
        import torch

        lengths = [len(feature["input_ids"]) for feature in features]
        width = max(lengths)

        def padded(name: str, filler: int) -> torch.Tensor:
            return torch.tensor([f[name] + [filler] * (width - len(f[name])) for f in features])

        ids, labels = padded("input_ids", 0), padded("labels", IGNORED)
        return {"input_ids": ids, "labels": labels, "num_tokens": torch.tensor(lengths)}

    def parts(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Part]:
        from torch.nn.functional import cross_entropy

        next_ids = batch["labels"][:, 1:]  # [B, T-1]
        positions = next_ids.ne(IGNORED).any(dim=0).nonzero().flatten()  # [P], those that any row trains
        logits = model(input_ids=batch["input_ids"], logits_to_keep=positions, use_cache=False).logits  # [B, P, V]
        kept = next_ids[:, positions].flatten()
        total = cross_entropy(logits.flatten(0, 1).float(), kept, ignore_index=IGNORED, reduction="sum")
        return {"token": Part(total, kept.ne(IGNORED).sum())}

    def num_items(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"token": batch["labels"][:, 1:].ne(IGNORED).sum()}
