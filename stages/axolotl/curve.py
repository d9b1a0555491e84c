"""axolotl's log records as the rows of our curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.core.errors import DataError
from stages.training.curves import CurveRow


@dataclass
class CurveBuilder:
    """Takes records (see checked_train) one by one; a row for every evaluation that steps were trained before.

    tokens_per_step: on average; axolotl does not say which rows a step had. num_trained: tokens with a label, so far.
    """

    tokens_per_step: float
    rows: list[CurveRow] = field(default_factory=list)
    best_step: int = 0  # of the adapter that axolotl has left; 0 before the end
    num_trained: int = 0
    steps: list[Mapping[str, Any]] = field(default_factory=list)  # since the last row
    started_s: float = 0.0

    def add(self, record: Mapping[str, Any]) -> CurveRow | None:
        """The row that the record completes. Raises DataError for a loss or gradient that is no number."""
        if record["event"] in ("begin", "saved"):
            self.started_s = record["time_s"]
        elif record["event"] == "end":
            self.best_step = record["best_step"]
        elif "loss" in record:
            _require_finite(record, "loss", "grad_norm")
            self.steps.append(record)
            self.num_trained = record["tokens/trainable"]
        elif "eval_loss" in record and self.steps:
            _require_finite(record, "eval_loss")
            self.rows.append(self._row(record))
            self.steps, self.started_s = [], record["time_s"]
            return self.rows[-1]
        return None

    def _row(self, evaluation: Mapping[str, Any]) -> CurveRow:
        num_steps = len(self.steps)
        return CurveRow(
            step=evaluation["step"],
            epoch=evaluation["epoch"],
            train_loss=sum(step["loss"] for step in self.steps) / num_steps,
            eval_loss=evaluation["eval_loss"],
            learning_rate=self.steps[-1]["learning_rate"],
            grad_norm=sum(step["grad_norm"] for step in self.steps) / num_steps,
            tokens_per_s=self.tokens_per_step * num_steps / max(self.steps[-1]["time_s"] - self.started_s, 1e-9),
        )

    @property
    def best_row(self) -> CurveRow:
        return next(row for row in self.rows if row.step == self.best_step)


def _require_finite(record: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not math.isfinite(record[name]):
            raise DataError(
                f"axolotl was stopped at step {record['step']}: {name} is {record[name]}; lower the learning rate, or "
                "look for broken rows"
            )
