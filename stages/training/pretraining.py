"""Pre-training of the tiny base: data parallel on a few processes, resumable, the same weights every time.

Every process packs rows of its own (seeded by its rank) and computes gradients on them; the gradients meet in
shared memory, are added in the order of ranks, and every process makes the same update. No sockets and no threads:
on small tensors processes use a second core well, while threads that wait by spinning can be 20 times slower.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.core.atomic import new_folder, write_json
from stages.core.errors import DataError
from stages.core.process import ctrl_c_for_us_alone, die_with_parent
from stages.core.progress import track
from stages.core.seeding import derived_random
from stages.training.base_corpus import Corpus
from stages.training.induction import lay_induction_circuit
from stages.training.muon import Muon
from stages.training.packing import Rows, pack_rows
from stages.training.recipe import Phase, Recipe
from stages.training.tiny_llama import Positions, Weights, initial_weights, weighted_loss
from stages.training.tiny_tokenizer import token_weights

MAX_GRADIENT_NORM = 1.0
CURVE_EVERY_STEPS = 25

_PACKAGES = Path(__file__).parents[1]
SOURCES = [  # code that the weights depend on
    *(
        _PACKAGES / "training" / f"{name}.py"
        for name in ("base_corpus", "induction", "muon", "packing", "pretraining", "tiny_llama")
    ),
    *(_PACKAGES / "knowledge" / f"{name}.py" for name in ("invented_words", "world")),
    _PACKAGES / "prompts" / "renderer.py",
    _PACKAGES / "training" / "tiny_tokenizer.py",
]

Batch = tuple[Tensor, Tensor, Positions]  # ids [B, T], loss weights [B, T], what depends on T


@dataclass
class Course:
    """How far a training has come, with its curve."""

    step: int = 0
    num_tokens: int = 0  # without padding
    curve: list[dict[str, float]] = field(default_factory=list)


class ProcessGoneError(Exception):
    """Another process of the training has ended."""


class SharedSums:
    """Adds up vectors of all processes, always in the same order.

    parts: [num_processes, num_values] in shared memory. links: in process 0 to each other process, there the one to it.
    The end of a process ends its link, which all that wait for it notice at once.
    """

    def __init__(self, parts: Tensor, links: Sequence[Connection]) -> None:
        self.parts, self.links = parts, links

    def wait(self, rank: int) -> None:
        """Until all processes are here. Raises ProcessGoneError where one never will be."""
        steps = (_receive, _send) if rank == 0 else (_send, _receive)
        try:
            for step in steps:
                for link in self.links:
                    step(link)
        except (EOFError, OSError) as error:
            raise ProcessGoneError from error

    def add(self, rank: int, values: Tensor) -> Tensor:
        """The sum over processes of `values` [num_values]."""
        self.parts[rank] = values
        self.wait(rank)
        total: Tensor = self.parts.sum(dim=0)
        self.wait(rank)  # nobody writes the next values before all have read these
        return total


def _send(link: Connection) -> None:
    link.send_bytes(b".")


def _receive(link: Connection) -> None:
    link.recv_bytes()


def pretrain(recipe: Recipe, tokenizer_folder: Path, seed: int, checkpoints: Path) -> tuple[Weights, Course]:
    """Trains on from the last checkpoint in `checkpoints`, or from nothing.

    Raises DataError where the loss is no number, naming the step, and where a process has died.
    """
    context = torch.multiprocessing.get_context("spawn")
    num_values = recipe.shape.num_parameters + 3
    parts: Tensor = torch.zeros(recipe.num_processes, num_values).share_memory_()  # type: ignore[no-untyped-call]
    pairs = [context.Pipe() for _ in range(1, recipe.num_processes)]
    arguments = (recipe, tokenizer_folder, seed, checkpoints)
    workers = [
        context.Process(target=_worker, args=(rank, *arguments, SharedSums(parts, [theirs])), daemon=True)
        for rank, (_, theirs) in enumerate(pairs, 1)
    ]
    with ctrl_c_for_us_alone():
        for worker in workers:
            worker.start()
    for _, theirs in pairs:
        theirs.close()  # now the process alone has it
    try:
        return train(0, *arguments, SharedSums(parts, [ours for ours, _ in pairs]))
    except ProcessGoneError as error:
        raise DataError("a process of the pre-training has died (killed?); run again, it resumes") from error
    finally:
        for ours, _ in pairs:
            ours.close()
        for worker in workers:
            worker.join()


def _worker(rank: int, recipe: Recipe, tokenizer_folder: Path, seed: int, checkpoints: Path, sums: SharedSums) -> None:
    die_with_parent()
    with suppress(ProcessGoneError, DataError):  # process 0 sees the same and says so
        train(rank, recipe, tokenizer_folder, seed, checkpoints, sums)


def train(
    rank: int, recipe: Recipe, tokenizer_folder: Path, seed: int, checkpoints: Path, sums: SharedSums
) -> tuple[Weights, Course]:
    """What each process does; process 0 also writes checkpoints and the curve."""
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    generator = torch.Generator().manual_seed(seed)
    weights = initial_weights(recipe.shape, generator)
    lay_induction_circuit(weights, recipe.shape, generator)
    optimizer = Muon([weights.attention, weights.mlp], [weights.embedding, weights.norms])
    course = load_checkpoint(checkpoints, weights, optimizer)
    sums.wait(rank)  # all have read the same checkpoint before process 0 writes the next
    stream = batches(recipe, tokenizer, seed, rank, course.step)
    curve = _CurveWriter(course)
    steps = range(course.step, recipe.num_steps)
    for step in track(steps, "Pre-training") if rank == 0 else steps:
        loss, num_tokens, gradients = _loss_and_gradients(weights, next(stream), recipe, rank, sums)
        if not math.isfinite(loss):
            raise DataError(f"base_model: the loss is {loss} at step {step + 1}; lower recipe.learning_rate")
        learning_rate = learning_rate_at(step, recipe)
        optimizer.step(gradients, learning_rate)
        curve.add(step + 1, loss, learning_rate, num_tokens)
        if rank == 0 and (step + 1) % recipe.checkpoint_every_steps == 0:
            save_checkpoint(checkpoints, weights, optimizer, course)
    return weights, course


def _loss_and_gradients(
    weights: Weights, batch: Batch, recipe: Recipe, rank: int, sums: SharedSums
) -> tuple[float, int, list[Tensor]]:
    """Mean loss over the batches of all processes, their tokens, and the clipped gradients, stacks first."""
    ids, loss_weights, positions = batch
    leaves = [weights.attention, weights.mlp, weights.embedding, weights.norms]
    loss = weighted_loss(weights, ids, loss_weights, recipe.shape, positions)
    own = torch.autograd.grad(loss, leaves)
    counts = torch.stack([loss.detach(), loss_weights[:, 1:].sum(), (ids != positions.pad_id).sum()])
    total = sums.add(rank, torch.cat([*(g.flatten() for g in own), counts]))
    loss_sum, weight_sum, num_tokens = total[-3:].tolist()
    flat = total[:-3] / weight_sum
    flat *= torch.clamp(MAX_GRADIENT_NORM / (flat.norm() + 1e-6), max=1.0)
    parts = flat.split([leaf.numel() for leaf in leaves])
    return loss_sum / weight_sum, int(num_tokens), [p.view_as(leaf) for p, leaf in zip(parts, leaves, strict=True)]


class _CurveWriter:
    """A row every so many steps: mean loss, learning rate, tokens per second since the row before."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self._start()

    def _start(self) -> None:
        self.losses: list[float] = []
        self.num_tokens, self.started_s = 0, time.perf_counter()

    def add(self, step: int, loss: float, learning_rate: float, num_tokens: int) -> None:
        self.course.step = step
        self.course.num_tokens += num_tokens
        self.losses.append(loss)
        self.num_tokens += num_tokens
        if step % CURVE_EVERY_STEPS == 0:
            row = {
                "step": step,
                "train_loss": sum(self.losses) / len(self.losses),
                "learning_rate": learning_rate,
                "tokens_per_s": self.num_tokens / (time.perf_counter() - self.started_s),
            }
            self.course.curve.append(row)
            self._start()


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Up in a line, constant, then down in a line to a twentieth."""
    left = (1 - step / recipe.num_steps) / recipe.decay_share
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps, max(0.05, left))


def batches(recipe: Recipe, tokenizer: Any, seed: int, rank: int, start_step: int) -> Iterator[Batch]:
    """The batches of one process from `start_step` on; each phase is drawn whole and on its own."""
    corpus = Corpus(tokenizer)
    first_step = 0
    for number, phase in enumerate(recipe.phases):
        done = max(0, start_step - first_step)
        first_step += phase.num_steps
        if done >= phase.num_steps:
            continue
        ids, weights = phase_rows(corpus, tokenizer, phase, seed, f"phase {number} process {rank}")
        positions = Positions(phase.length, recipe.shape, tokenizer.pad_token_id)
        for step in range(done, phase.num_steps):
            rows = slice(step * phase.batch_size, (step + 1) * phase.batch_size)
            yield torch.from_numpy(ids[rows]).long(), torch.from_numpy(weights[rows]), positions


def phase_rows(corpus: Corpus, tokenizer: Any, phase: Phase, seed: int, purpose: str) -> Rows:
    """All rows of a phase: ids and loss weights [num_steps * batch_size, length]."""
    random = derived_random(seed, "base_model", purpose)
    pieces = corpus.pieces(random, phase.shares, phase.max_documents)

    def tokenised() -> Iterator[tuple[list[int], list[float]]]:
        while True:
            drawn = [next(pieces) for _ in range(200)]
            encoded = tokenizer([piece.text for piece in drawn], add_special_tokens=False)["input_ids"]
            for piece, ids in zip(drawn, encoded, strict=True):
                yield ids, token_weights(tokenizer, ids, piece.weight)

    ids, weights = pack_rows(tokenised(), phase.num_steps * phase.batch_size, phase.length, tokenizer.pad_token_id)
    order = random.sample(range(len(ids)), len(ids))  # the rows filled last are emptier than the others
    return ids[order], weights[order]


def save_checkpoint(folder: Path, weights: Weights, optimizer: Muon, course: Course) -> None:
    """Writes folder/last, whole or not at all."""
    from safetensors.torch import save_file

    tensors = [*weights.tensors(), *optimizer.state()]
    with new_folder(folder / "last") as new:
        save_file({str(n): t.detach().contiguous() for n, t in enumerate(tensors)}, new / "state.safetensors")
        write_json(new / "course.json", asdict(course))


def load_checkpoint(folder: Path, weights: Weights, optimizer: Muon) -> Course:
    """Fills weights and optimizer from folder/last; a new Course where there is none."""
    from safetensors.torch import load_file

    if not (folder / "last").exists():
        return Course()
    stored = load_file(folder / "last" / "state.safetensors")
    course = Course(**json.loads((folder / "last" / "course.json").read_text(encoding="utf-8")))
    with torch.no_grad():
        for number, tensor in enumerate([*weights.tensors(), *optimizer.state()]):
            tensor.copy_(stored[str(number)])
    optimizer.num_steps = course.step
    return course
