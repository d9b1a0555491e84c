"""Numbers predicted for pairs: baselines, base and trained models side by side, on pairs that training never saw.

Each recipe of train_regression is read greedily, by expected value and by its head where it has one, without and with
neighbours in the prompt, for every seed that was trained; each number with a 95 % interval.

    reads   data/<task>/{pairs,pair_index}, models/base/<model>, models/<task>/regression/<recipe>/<split>/seed-<n>;
            for the report, reports/<task>/train_regression/<recipe>/curve.csv
    writes  reports/<task>/metrics.json, headline.json, report.md, figures/*.png, plots/*.csv
            models/<task>/calibration.json: which model `groundtune predict` takes, and how its intervals are made

    python -m stages.evaluate_regression
    python -m stages.evaluate_regression evaluate_regression.limit=10
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.schema import Model, one_of
from stages.core.seeding import seed_everything
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.evaluation.headline import regression_headline
from stages.evaluation.regression_publishing import publish, read_curve
from stages.evaluation.regression_results import (
    EXPECTED,
    GREEDY,
    HEAD,
    NEIGHBOURS,
    FreeAnswers,
    SplitResults,
    Summary,
    System,
    Task,
    as_json,
)
from stages.evaluation.regression_scores import metrics
from stages.generation.loading import check_adapter, load_tokenizer, resolve_base
from stages.regression.baselines import constant_mean, fit_ridge, nearest_mean
from stages.regression.distribution import Predictions
from stages.regression.evaluation_pairs import HELD_OUT, EvaluationPairs
from stages.regression.model_readings import Job, Reading, Setting, read_models
from stages.regression.pair_prompts import PairRenderer
from stages.regression.task import SPLITS, RegressionTask

BASE = "base"


@dataclass
class Config:
    """Mirrors conf/evaluate_regression/default.yaml."""

    task: RegressionTask = MISSING
    model: Model = MISSING
    seed: int = MISSING
    recipes: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    neighbours: int = MISSING
    tolerances: list[float] = field(default_factory=list)
    targets: dict[str, float] = field(default_factory=dict)
    level: float = MISSING
    max_length: int = 0
    batch_size: int = MISSING
    num_unconstrained: int = 0
    max_new_tokens: int = MISSING
    num_resamples: int = MISSING
    limit: int = 0
    num_threads: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        for split in self.splits:
            one_of(split, SPLITS, "splits")
        if not self.splits:
            raise ValueError("splits: name at least one")
        for key in self.targets:
            one_of(key, tuple(metrics(self.all_tolerances)), "targets")
        if not 0 < self.level < 1:
            raise ValueError(f"level: {self.level} is not between 0 and 1")
        if min(self.neighbours, self.limit, self.num_unconstrained, self.max_length, self.num_threads) < 0:
            raise ValueError("neighbours, limit, num_unconstrained, max_length and num_threads must be at least 0")
        if min(self.batch_size, self.max_new_tokens, self.num_workers) < 1:
            raise ValueError("batch_size, max_new_tokens and num_workers must be at least 1")
        if BASE in self.recipes:
            raise ValueError(f"recipes: {BASE} is the base model's name")
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples: {self.num_resamples} are too few for a 95 % interval; give at least 100")

    @property
    def all_tolerances(self) -> list[float]:
        """The task's own first, which the headline is about."""
        return list(dict.fromkeys([self.task.tolerance, *self.tolerances]))


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Measures everything and writes the report; returns what stands in metrics.json."""
    evaluation = Evaluation(config, workspace)
    evaluation.measure_baselines()
    evaluation.measure_models()
    task, results = config.task, evaluation.results
    shown = Task(task.name, task.json_field, task.low, task.high, task.decimals, task.unit)
    summary = Summary(
        shown, results, config.recipes, config.all_tolerances, config.level, config.seed, config.num_resamples
    )
    tree = summary.tree()
    measured = as_json(tree)
    write_json(workspace.write(f"reports/{task.name}/metrics.json"), measured)
    write_json(workspace.write(f"reports/{task.name}/headline.json"), regression_headline(measured))
    write_json(workspace.write(f"models/{task.name}/calibration.json"), summary.calibration(config.model.name))
    curves = {recipe: read_curve(path.read_text(encoding="utf-8")) for recipe, path in evaluation.curves.items()}
    publish(workspace, summary, tree, config.model.name, config.targets, curves)
    return measured


class Evaluation:
    """Measures one system after the other into `results`, one for each split.

    What needs no model is read, and what the models need is checked, when it is made.
    """

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self.config = config
        self._set_up()
        self.weights = resolve_base(workspace, config.model)
        self.tokenizer = load_tokenizer(self.weights)
        longest = config.max_length or config.model.max_context_tokens - config.max_new_tokens
        renderer = PairRenderer(config.task, self.tokenizer, longest)
        self.adapters = {split: self._find_adapters(workspace, split, renderer.hash) for split in config.splits}
        folder = f"reports/{config.task.name}/train_regression"
        self.curves = {recipe: workspace.read(f"{folder}/{recipe}/curve.csv") for recipe in config.recipes}
        self.data = [self._read(workspace, split) for split in config.splits]
        for data in self.data:
            data.render(renderer, self._shown)
        self.results = [_empty_results(data) for data in self.data]

    def _set_up(self) -> None:
        import torch

        seed_everything(self.config.seed)
        if self.config.num_threads:
            torch.set_num_threads(self.config.num_threads)

    @property
    def _shown(self) -> list[int]:
        """How many neighbours the prompts show: none, and all."""
        return [0, self.config.neighbours] if self.config.neighbours else [0]

    def _find_adapters(self, workspace: Workspace, split: str, prompt_hash: str) -> dict[str, dict[int, Path]]:
        """Recipe -> seed -> folder. Only the first split needs every recipe."""
        found = {}
        for recipe in self.config.recipes:
            place = f"models/{self.config.task.name}/regression/{recipe}"
            folders = {
                int(path.name.removeprefix("seed-")): path
                for path in sorted((workspace.read(place) / split).glob("seed-*"))
            }
            if not folders and split == self.config.splits[0]:
                raise DataError(f"{place}/{split}: no trained seed; run `dvc repro train_regression`")
            for path in folders.values():
                check_adapter(path, prompt_hash)
            if folders:
                found[recipe] = dict(sorted(folders.items()))
        return found

    def _read(self, workspace: Workspace, split: str) -> EvaluationPairs:
        folder, config = f"data/{self.config.task.name}", self.config
        pairs, index = workspace.read(f"{folder}/pairs"), workspace.read(f"{folder}/pair_index")
        return EvaluationPairs.read(pairs, index, split, config.neighbours, config.limit)

    def measure_baselines(self) -> None:
        """The constant mean, the neighbours' mean, and ridge regression on the pairs' vectors."""
        low, high = self.config.task.low, self.config.task.high
        for data, results in zip(self.data, self.results, strict=True):
            for name, (validation, test) in self._baselines(data).items():
                # a language model's answers cannot leave the range either
                results.systems[name] = System(np.clip([validation], low, high), np.clip([test], low, high))

    def _baselines(self, data: EvaluationPairs) -> dict[str, list[Any]]:
        """Name -> predictions for the validation pairs and for the test pairs."""
        known, top_k = data.values("train"), self.config.neighbours
        predicted = {"constant": [constant_mean(known, len(data.pairs[part])) for part in HELD_OUT]}
        if top_k:
            predicted["nearest"] = [nearest_mean(data.neighbour_values(part), top_k, known) for part in HELD_OUT]
        ridge = fit_ridge(data.vectors["train"], known, data.vectors["validation"], data.values("validation"))
        predicted["ridge"] = [ridge.predict(data.vectors[part]) for part in HELD_OUT]
        return predicted

    def measure_models(self) -> None:
        """The base model, and every seed of every recipe."""
        config = self.config
        places = [(name, data) for name in (BASE, *config.recipes) for data in self.data]
        jobs = {
            (name, data.split): self._jobs(name, data, self.adapters[data.split].get(name, {})) for name, data in places
        }
        setting = Setting(
            self.weights, config.model, config.task, config.batch_size, config.max_new_tokens, config.num_threads
        )
        readings = iter(read_models(setting, [job for found in jobs.values() for job in found], config.num_workers))
        results = {result.name: result for result in self.results}
        for (name, split), found in jobs.items():
            self._add(results[split], name, [next(readings) for _ in found])

    def _jobs(self, name: str, data: EvaluationPairs, folders: dict[int, Path]) -> list[Job]:
        """One for each seed; answers without the grammar are the first seed's."""
        num_free = self.config.num_unconstrained if data is self.data[0] else 0
        adapters: list[Path | None] = [None] if name == BASE else list(folders.values())
        return [Job(name, adapter, data, 0 if number else num_free) for number, adapter in enumerate(adapters)]

    def _add(self, results: SplitResults, name: str, readings: Sequence[Reading]) -> None:
        if not readings:
            return  # a recipe that was not trained on this split
        if answers := readings[0].answers:
            results.free_answers[name] = FreeAnswers(
                [answer.value is not None for answer in answers], [answer.reason for answer in answers]
            )
        seeds = tuple(self.adapters[results.name].get(name, ()))
        results.systems |= _systems(name, seeds, [reading.predictions for reading in readings], self._shown)


def _empty_results(data: EvaluationPairs) -> SplitResults:
    test = data.pairs["test"]
    return SplitResults(
        name=data.split,
        ids=data.ids("test"),
        first=[pair.a_id for pair in test],
        second=[pair.b_id for pair in test],
        truth=data.values("test"),
        validation_truth=data.values("validation"),
        true_values=data.true_values("test"),
        num_shortened=sum(data.shortened.values()),
        num_train=len(data.pairs["train"]),
    )


def _systems(
    name: str, seeds: tuple[int, ...], readings: Sequence[Mapping[tuple[str, int], Predictions]], shown: Sequence[int]
) -> dict[str, System]:
    """Every way of reading a number off one model, from what each of its seeds predicted."""
    systems = {}
    for num in shown:
        validation, test = ([reading[part, num] for reading in readings] for part in HELD_OUT)
        for decoding in (GREEDY, EXPECTED, HEAD):
            numbers = [[getattr(seed, decoding) for seed in part] for part in (validation, test)]
            if any(row is None for part in numbers for row in part):
                continue  # no head
            distributions: dict[str, Any] = {}
            if decoding == EXPECTED:
                distributions = {
                    "values": validation[0].values,
                    "validation_probabilities": np.stack([seed.probabilities for seed in validation]),
                    "test_probabilities": np.stack([seed.probabilities for seed in test]),
                }
            stacked = [np.stack(part) for part in numbers]
            system = System(stacked[0], stacked[1], name if seeds else "", decoding, num, seeds, **distributions)
            systems[f"{name}_{decoding}{NEIGHBOURS if num else ''}"] = system
    return systems


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
