"""A checkpoint is for one training: another setting, another row, another launch never find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.launch import Launch
from stages.core.schema import Lora, Training
from stages.training import lora, sft
from stages.training.objective import NextToken, TokenRow

ROWS = [TokenRow("a", [1, 2, 3], 2), TokenRow("b", [4, 5], 1)]


class StoppedError(Exception):
    pass


@pytest.fixture
def folder_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_lora: Lora, tiny_training: Callable[..., Training]
) -> Any:
    """The folder in which a training with these changes would look for its checkpoints."""

    def folder(**changes: Any) -> str:
        found = []

        def stops(*args: Any) -> Any:
            found.append(args[6].name)
            raise StoppedError

        monkeypatch.setattr(sft, "_train", stops)
        monkeypatch.setattr(lora, "attach_lora", lambda model, *_: model)
        values = {
            "train_rows": ROWS,
            "eval_rows": ROWS,
            "lora_config": tiny_lora,
            "training": tiny_training(),
            "seed": 1,
            "base_sha256": "base",
            "launched": Launch("single"),
        }
        with pytest.raises(StoppedError), sft.train_lora(None, None, **{**values, **changes}, checkpoint_root=tmp_path):
            pass
        return found[0]

    return folder


def test_the_same_training_finds_its_own(folder_of: Any) -> None:
    assert folder_of() == folder_of()


class OtherObjective(NextToken):
    pass


def test_nothing_else_does(folder_of: Any, tiny_lora: Lora, tiny_training: Callable[..., Training]) -> None:
    others = [
        folder_of(**changes)
        for changes in (
            {"training": tiny_training(learning_rate=0.02)},
            {"training": tiny_training(accumulation=2)},
            {"lora_config": replace(tiny_lora, r=8)},
            {"seed": 2},
            {"base_sha256": "another base"},
            {"train_rows": [TokenRow("a", [1, 2, 4], 2), ROWS[1]]},
            {"train_rows": ROWS[::-1]},
            {"eval_rows": ROWS[:1]},
            {"objective": OtherObjective()},
            {"training": tiny_training(accumulation=2), "launched": Launch("ddp", 2)},
        )
    ]
    assert len({folder_of(), *others}) == len(others) + 1
