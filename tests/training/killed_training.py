"""Trains on a tiny model in forked children that kill themselves (SIGKILL) where they are told to.

    python killed_training.py <model folder> <work folder> '{"name": [<places to die at, one child each>], ...}'

A place: "step 7" (in the middle of it), "writing 8" (half of checkpoint 8 is on disk), "marking 8" (all of it, but not
its marker), "pruning 8" (its marker too, older checkpoints are still there), "saving" (the adapter). After each list
comes a child that is not killed. Libraries are imported once, before the forks; nothing computes in the parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch  # noqa: F401
import trl  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.core.schema import Lora, Training
from stages.training import checkpoints, lora, sft, trainer
from stages.training.curves import write_curve
from stages.training.objective import TokenRow


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str) -> None:
    """Patches the harness so that it dies at `place`."""
    if place == "saving":
        mock.patch.object(lora, "copy_adapter", lambda *args: die()).start()
        return
    name, number = place.split()
    targets: dict[str, tuple[Any, str]] = {
        "step": (trainer.LoraTrainer, "training_step"),
        "writing": (trainer.LoraTrainer, "_save_rng_state"),
        "marking": (checkpoints, "mark_complete"),
        "pruning": (checkpoints, "keep_only"),
    }
    owner, attribute = targets[name]
    original = getattr(owner, attribute)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        step = args[0].state.global_step if name in ("step", "writing") else None
        folder_step = args[1] if name == "marking" else args[2] if name == "pruning" else None
        if (step if step is not None else folder_step) == int(number) - (name == "step"):
            die()
        return original(*args, **kwargs)

    mock.patch.object(owner, attribute, deadly).start()


def train(model_folder: Path, output: Path) -> None:
    """19 rows in batches of 2, two to a step: 5 steps an epoch, evaluated every half epoch, stopped early."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    rows = [TokenRow(str(n), [6 + (7 * n + k * k) % 250 for k in range(8 + n)], 4 + n % 3) for n in range(25)]
    training = Training(
        learning_rate=0.05,
        num_epochs=6,
        batch_size=2,
        accumulation=2,
        max_length=64,
        warmup_steps=2,
        patience=1,
        checkpoint_every_epochs=0.5,
        num_threads=1,
    )
    lora_config = Lora(r=4, alpha=8, dropout=0.1, modules=["q_proj", "gate_proj"])
    root = output / "checkpoints"
    with sft.train_lora(
        model, tokenizer, rows[:19], rows[19:], lora_config, training, seed=5, base_sha256="", checkpoint_root=root
    ) as trained:
        adapter = output / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        trained.save(adapter)
        write_curve(output / "curve.csv", trained.curve)
        (output / "figures.json").write_text(json.dumps(trained.figures))


def child(model_folder: Path, output: Path, place: str | None) -> int:
    """Runs one training in a fork; its exit status."""
    process = os.fork()
    if process == 0:
        if place is not None:
            arm(place)
        train(model_folder, output)
        os._exit(0)
    return os.waitpid(process, 0)[1]


def main() -> None:
    model_folder, work = Path(sys.argv[1]), Path(sys.argv[2])
    for name, places in json.loads(sys.argv[3]).items():
        for place in places:
            status = child(model_folder, work / name, place)
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                sys.exit(f"{name}: not killed at {place}: status {status}")
        if status := child(model_folder, work / name, None):
            sys.exit(f"{name}: the last run failed: status {status}")


if __name__ == "__main__":
    main()
