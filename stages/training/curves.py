"""The course of a training as a DVC plot: one row per evaluation, training columns are means since the row before.

step,epoch,train_loss,eval_loss,learning_rate,grad_norm,tokens_per_s
21,1,1.93112,1.70415,0.002,0.61,14205
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stages.core.atomic import write_text


@dataclass(frozen=True)
class CurveRow:
    """train_loss: mean over steps of the loss per trained token. tokens_per_s: non-pad tokens, evaluation not counted.

    learning_rate: of the last step. grad_norm: mean, before clipping. parts: further columns, where a loss has
    several parts: eval_<part> and grad_norm_<part>, both before the part's weight.
    """

    step: int
    epoch: float
    train_loss: float
    eval_loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    parts: dict[str, float] = field(default_factory=dict)

    def columns(self) -> dict[str, float]:
        """Parts by name: a training that was resumed has them in another order than one that was not."""
        values = asdict(self)
        return values | dict(sorted(values.pop("parts").items()))


def write_curve(path: Path, rows: Sequence[CurveRow]) -> None:
    """Writes CSV; six significant digits keep a diff readable. The columns are those of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0].columns()), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: format(value, ".6g") for key, value in row.columns().items()})
    write_text(path, text.getvalue())


def evaluation_steps(num_steps_per_epoch: int, num_epochs: int, every_epochs: float) -> list[int]:
    """The optimizer steps after which to evaluate and save, the last step among them."""
    total = num_steps_per_epoch * num_epochs
    num_intervals = max(1, round(num_epochs / every_epochs))
    steps = {max(1, round(k * every_epochs * num_steps_per_epoch)) for k in range(1, num_intervals + 1)}
    return sorted(step for step in steps | {total} if step <= total)
