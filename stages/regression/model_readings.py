"""What models say about the pairs of an evaluation: one job for each model, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages.core.process import map_in_processes
from stages.core.schema import Model
from stages.generation.decoding import generate
from stages.generation.loading import load_tokenizer
from stages.regression.adapter_switch import AdapterSwitch
from stages.regression.answer import ParsedAnswer, parse_answer
from stages.regression.distribution import Predictions
from stages.regression.evaluation_pairs import EvaluationPairs
from stages.regression.predictor import Predictor
from stages.regression.task import RegressionTask


@dataclass(frozen=True)
class Setting:
    """What all jobs share. num_threads: of torch in each worker, 0: its own choice."""

    weights: Path
    model: Model
    task: RegressionTask
    batch_size: int
    max_new_tokens: int
    num_threads: int = 0


@dataclass(frozen=True)
class Job:
    """One model (an adapter's folder, or None: the base) and the pairs to show it.

    num_free: so many test pairs are also answered without the grammar.
    """

    name: str
    adapter: Path | None
    data: EvaluationPairs
    num_free: int = 0


@dataclass(frozen=True)
class Reading:
    """predictions: by part and number of neighbours shown. answers: to the first test pairs, held to no grammar."""

    predictions: dict[tuple[str, int], Predictions]
    answers: list[ParsedAnswer]


def read_models(setting: Setting, jobs: Sequence[Job], num_workers: int = 1) -> list[Reading]:
    """One reading for each job, in order. Every worker has a base model of its own in memory."""
    num_workers = min(num_workers, len(jobs))
    if num_workers == 1:
        return _read_each(setting, jobs)
    shares = [jobs[worker::num_workers] for worker in range(num_workers)]
    readings = map_in_processes(partial(_read_each, setting), shares, num_workers)
    return [readings[number % num_workers][number // num_workers] for number in range(len(jobs))]


def _read_each(setting: Setting, jobs: Sequence[Job]) -> list[Reading]:
    import torch

    if setting.num_threads:
        torch.set_num_threads(setting.num_threads)
    switch = AdapterSwitch(setting.weights, setting.model)
    return [_read(setting, switch, job) for job in jobs]


def _read(setting: Setting, switch: AdapterSwitch, job: Job) -> Reading:
    model, tokenizer = switch.use(job.adapter), load_tokenizer(setting.weights)
    predictor = Predictor(model, tokenizer, setting.task, setting.batch_size)
    predictions = {
        (part, num): predictor.predict(job.data.ids(part), prompts, job.name)
        for (part, num), prompts in job.data.prompts.items()
    }
    prompts = job.data.prompts["test", 0][: job.num_free]
    texts = generate(model, tokenizer, prompts, setting.max_new_tokens, setting.batch_size, job.name)
    return Reading(predictions, [parse_answer(setting.task, text) for text in texts])
