"""Pre-training: killed and run again it ends with the same bytes; a loss that is no number stops it by its step."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest
import torch

from stages.core.errors import DataError
from stages.training import pretraining
from stages.training.pretraining import SharedSums, learning_rate_at, pretrain, train
from stages.training.recipe import Phase, Recipe
from stages.training.tiny_tokenizer import save_new_tokenizer

SHARES = {"chat": 0.5, "copy": 0.5}


def recipe(num_processes: int = 1, learning_rate: float = 1e-3) -> Recipe:
    return Recipe(
        vocabulary=700,
        hidden=32,
        intermediate=48,
        layers=2,
        heads=4,
        max_positions=256,
        learning_rate=learning_rate,
        warmup_steps=2,
        decay_share=0.5,
        num_processes=num_processes,
        checkpoint_every_steps=2,
        phases=[Phase(3, 2, 96, 1, SHARES), Phase(2, 1, 128, 2, SHARES)],
    )


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    save_new_tokenizer(folder, 700, 256, seed=1)
    return folder


def trained(tokenizer_folder: Path, checkpoints: Path, settings: Recipe) -> tuple[list[torch.Tensor], int]:
    """All processes of a training, as threads: the same code without the cost of starting interpreters."""
    parts = torch.zeros(settings.num_processes, settings.shape.num_parameters + 3)
    pairs = [multiprocessing.Pipe() for _ in range(1, settings.num_processes)]
    arguments = (settings, tokenizer_folder, 7, checkpoints)
    others = [
        threading.Thread(target=train, args=(rank, *arguments, SharedSums(parts, [theirs])))
        for rank, (_, theirs) in enumerate(pairs, 1)
    ]
    for other in others:
        other.start()
    weights, course = train(0, *arguments, SharedSums(parts, [ours for ours, _ in pairs]))
    for other in others:
        other.join()
    return [tensor.detach().clone() for tensor in weights.tensors()], course.num_tokens


class KilledError(Exception):
    """What stands for a SIGKILL."""


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole, num_tokens = trained(tokenizer_folder, tmp_path / "whole", recipe())

    def killing(step: int, settings: Recipe) -> float:
        if step == killed_at - 1:
            raise KilledError
        return learning_rate_at(step, settings)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(pretraining, "learning_rate_at", killing)
        trained(tokenizer_folder, tmp_path / "killed", recipe())
    resumed, resumed_tokens = trained(tokenizer_folder, tmp_path / "killed", recipe())
    assert resumed_tokens == num_tokens
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_two_processes_end_with_the_same_bytes_twice(tokenizer_folder: Path, tmp_path: Path) -> None:
    first, _ = trained(tokenizer_folder, tmp_path / "first", recipe(2))
    second, _ = trained(tokenizer_folder, tmp_path / "second", recipe(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_resumed_training_does_not_begin_again(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tokenizer_folder, tmp_path, recipe())
    asked = []

    def asking(step: int, settings: Recipe) -> float:
        asked.append(step)
        return learning_rate_at(step, settings)

    monkeypatch.setattr(pretraining, "learning_rate_at", asking)
    trained(tokenizer_folder, tmp_path, recipe())
    assert asked == [4]  # the last checkpoint was written after step 4 of 5


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_is_killed_alone_is_noticed_at_once(tokenizer_folder: Path, tmp_path: Path) -> None:
    settings = recipe(2)
    settings.phases = [Phase(2000, 2, 96, 1, SHARES)]  # for longer than the test

    def kill_the_other() -> None:
        while not (tmp_path / "last").exists():  # both train
            time.sleep(0.01)
        (other,) = multiprocessing.active_children()
        other.kill()

    threading.Thread(target=kill_the_other).start()
    with pytest.raises(DataError, match="a process of the pre-training has died"):
        pretrain(settings, tokenizer_folder, 7, tmp_path)
    assert multiprocessing.active_children() == []


def test_the_number_of_processes_changes_the_batch(tokenizer_folder: Path, tmp_path: Path) -> None:
    one, one_tokens = trained(tokenizer_folder, tmp_path / "one", recipe(1))
    two, two_tokens = trained(tokenizer_folder, tmp_path / "two", recipe(2))
    assert two_tokens > 1.5 * one_tokens
    assert not torch.equal(one[0], two[0])


def test_a_loss_that_is_no_number_names_the_step(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "weighted_loss", lambda weights, *_: weights.embedding.sum() * float("nan"))
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, leaves: [torch.zeros_like(leaf) for leaf in leaves])
    with pytest.raises(DataError, match="step 1"):
        trained(tokenizer_folder, tmp_path, recipe())


def test_the_learning_rate_goes_up_stays_and_comes_down() -> None:
    settings = recipe()
    settings.phases[0].num_steps = 98
    rates = [learning_rate_at(step, settings) for step in (0, 1, 30, 50, 75, 99)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 5e-4, 5e-5])
