"""The curve's file, and where on it the points lie."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stages.training.curves import CurveRow, evaluation_steps, write_curve


def test_the_file_is_csv_with_six_digits(tmp_path: Path) -> None:
    rows = [CurveRow(21, 1.0, 1.9311234567, 1.7, 0.002, 0.61, 14205.4)]
    write_curve(tmp_path / "curve.csv", rows)
    assert (tmp_path / "curve.csv").read_text() == (
        "step,epoch,train_loss,eval_loss,learning_rate,grad_norm,tokens_per_s\n21,1,1.93112,1.7,0.002,0.61,14205.4\n"
    )


def test_parts_stand_in_one_order(tmp_path: Path) -> None:
    for parts in ({"eval_token": 1.0, "eval_number": 2.0}, {"eval_number": 2.0, "eval_token": 1.0}):
        write_curve(tmp_path / "curve.csv", [CurveRow(21, 1.0, 1.9, 1.7, 0.002, 0.61, 14205.4, parts)])
        assert (tmp_path / "curve.csv").read_text().splitlines()[0].endswith("tokens_per_s,eval_number,eval_token")


def test_once_an_epoch() -> None:
    assert evaluation_steps(21, 3, 1.0) == [21, 42, 63]


def test_parts_of_an_epoch_and_every_other_epoch() -> None:
    assert evaluation_steps(5, 2, 0.5) == [2, 5, 8, 10]
    assert evaluation_steps(5, 3, 2.0) == [10, 15]


@given(st.integers(1, 50), st.integers(1, 30), st.floats(0.01, 5))
def test_the_last_step_is_always_there_and_none_after_it(per_epoch: int, num_epochs: int, every: float) -> None:
    steps = evaluation_steps(per_epoch, num_epochs, every)
    assert steps[-1] == per_epoch * num_epochs
    assert steps == sorted(set(steps)) and steps[0] >= 1
