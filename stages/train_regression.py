"""A model that writes a number: LoRA or QLoRA with cross-entropy + weight x the distance of the number it would write.

reads   data/<task>/pairs/<split>/{train,validation}.jsonl; data/<task>/pair_index/<split>/neighbours/; the base model
writes  models/<task>/regression/<variant>/<split>/seed-<n>/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<task>/train_regression/<variant>/{metrics.json,curve.csv}    (the curve: of the first split and seed)

    python -m stages.train_regression @hybrid
    python -m stages.train_regression @hybrid train_regression.limit=10
    python -m stages.train_regression @hybrid -m train_regression.loss.weight=5,10,20
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core import launch, schema
from stages.core.atomic import new_folder, write_json
from stages.core.errors import ConfigError
from stages.core.launch import Launch
from stages.core.process import map_in_processes
from stages.core.seeding import derived_random
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer, resolve_base, write_adapter_note
from stages.regression import number_head
from stages.regression.pair_index import known_neighbours, read_pairs
from stages.regression.pair_prompts import Neighbour, PairRenderer
from stages.regression.pairs import Pair
from stages.regression.settings import LossSettings
from stages.regression.task import SPLITS, RegressionTask
from stages.training import checkpoints, lora
from stages.training.curves import write_curve
from stages.training.results import Origin
from stages.training.sft import Trained, set_threads, train_lora


@dataclass
class Neighbours:
    """Known pairs in the prompt: how many, and in what share of the rows."""

    top_k: int = MISSING
    share: float = MISSING

    def __post_init__(self) -> None:
        if self.top_k < 0 or not 0 <= self.share <= 1:
            raise ValueError("neighbours: top_k must not be negative, share is between 0 and 1")


@dataclass
class Config:
    """Mirrors conf/train_regression, one variant."""

    task: RegressionTask = MISSING
    model: schema.Model = MISSING
    variant: str = MISSING
    quantise: bool = MISSING
    seeds: dict[str, list[int]] = field(default_factory=dict)
    limit: int = MISSING
    num_workers: int = MISSING
    neighbours: Neighbours = MISSING
    lora: schema.Lora = MISSING
    loss: LossSettings = MISSING
    training: schema.Training = MISSING
    launch: Launch = field(default_factory=Launch)

    def __post_init__(self) -> None:
        if not self.seeds or set(self.seeds) - set(SPLITS):
            raise ValueError(f"seeds: name at least one split of {', '.join(SPLITS)}")
        if not all(self.seeds.values()):
            raise ValueError("seeds: each split needs at least one")
        if self.num_workers < 1:
            raise ValueError("num_workers: must be at least 1")


@dataclass(frozen=True)
class Run:
    """One training."""

    config: Config
    workspace: Workspace
    split: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.split}/seed-{self.seed}"

    @property
    def checkpoint_root(self) -> Path:
        """A folder for this run alone: its checkpoints stay until all runs are done."""
        parts = (self.config.task.name, self.config.variant, self.split, f"seed-{self.seed}")
        return self.workspace.cache("checkpoints", "train_regression", *parts)


@dataclass(frozen=True)
class Finished:
    """What a run leaves: the best checkpoint, the adapter's note, and what is reported."""

    trained: Trained
    note: dict[str, Any]
    metrics: dict[str, Any]


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains every split and seed, writes; returns the metrics."""
    if config.launch.kind in launch.SHARDED and (config.quantise or config.loss.readout == "head"):
        raise ConfigError(f"launch.kind: {config.launch.kind} shards neither 4-bit weights (quantise) nor a head")
    launch.train("train_regression", config, workspace)
    runs = [Run(config, workspace, split, seed) for split, seeds in config.seeds.items() for seed in seeds]
    finished = _train_all(runs, config.num_workers)
    with new_folder(workspace.write(f"models/{config.task.name}/regression/{config.variant}")) as folder:
        for run_, done in zip(runs, finished, strict=True):
            adapter = folder / run_.split / f"seed-{run_.seed}"
            adapter.mkdir(parents=True)
            done.trained.save(adapter)
            write_adapter_note(adapter, done.note)
    metrics: dict[str, Any] = {}
    for run_, done in zip(runs, finished, strict=True):
        metrics.setdefault(run_.split, {})[f"seed-{run_.seed}"] = done.metrics
    report = f"reports/{config.task.name}/train_regression/{config.variant}"
    write_curve(workspace.write(f"{report}/curve.csv"), finished[0].trained.curve)
    write_json(workspace.write(f"{report}/metrics.json"), metrics)
    for done in finished:
        checkpoints.discard(done.trained.checkpoint.parent)
    return metrics


def _train_all(runs: Sequence[Run], num_workers: int) -> list[Finished]:
    if launch.is_launched():
        for run_ in runs:
            with suppress(launch.TrainingDone):
                train(run_)
        raise launch.TrainingDone
    if num_workers == 1 or len(runs) == 1:
        return [train(run_) for run_ in runs]
    return map_in_processes(train, runs, num_workers)


def train(run_: Run) -> Finished:
    """One training, up to its best checkpoint; started again after a kill, it goes on where it was."""
    from stages.regression.hybrid import HybridLoss, PairRow

    config, workspace = run_.config, run_.workspace
    task, pairs_folder = config.task, workspace.read(f"data/{config.task.name}/pairs")
    base = resolve_base(workspace, config.model)
    tokenizer = load_tokenizer(base)
    renderer = PairRenderer(task, tokenizer, config.training.max_length)
    objective = HybridLoss(renderer, tokenizer, config.loss)
    set_threads(config.training.num_threads)
    num_shortened = 0

    def rows(part: str) -> list[PairRow]:
        nonlocal num_shortened
        made = []
        for pair, neighbours in _with_neighbours(run_, part):
            answer = renderer.answer_ids(pair.value, pair.rationale)
            prompt = renderer.prompt_ids(pair.a, pair.b, neighbours, reserve=len(answer))
            num_shortened += prompt.num_shortened
            made.append(objective.row(pair.id, prompt.input_ids, answer, pair.value))
        return made

    train_rows, eval_rows = rows("train"), rows("validation")
    files = [pairs_folder / run_.split / f"{part}.jsonl" for part in ("train", "validation")]
    base_sha256 = lora.weights_sha256(base)
    origin = Origin(config.model, base_sha256, renderer.hash, files, config.lora, config.training, run_.seed)
    model = load_model(base, config.model, quantise=config.quantise)
    if with_head := config.loss.readout == "head":
        number_head.add_head(model)
    with train_lora(
        model,
        tokenizer,
        train_rows,
        eval_rows,
        config.lora,
        config.training,
        seed=run_.seed,
        base_sha256=base_sha256,
        checkpoint_root=run_.checkpoint_root,
        objective=objective,
        also_trained=[number_head.NAME] if with_head else [],
        keep_checkpoints=True,
        launched=config.launch,
    ) as trained:
        counts = {"num_train_rows": len(train_rows), "num_eval_rows": len(eval_rows), "num_shortened": num_shortened}
        note = {**origin.note(), "quantise": config.quantise, "loss": dict(objective.settings)}
        return Finished(trained.without_model(), note, {**trained.figures, **counts})


def _with_neighbours(run_: Run, part: str) -> list[tuple[Pair, list[Neighbour]]]:
    """The pairs of a part; a share of them, drawn by the seed, with their neighbours of the training part."""
    config, workspace = run_.config, run_.workspace
    folder = workspace.read(f"data/{config.task.name}/pairs")
    pairs = read_pairs(folder, run_.split, part, config.limit)
    shown = config.neighbours
    if not shown.top_k or not shown.share:
        return [(pair, []) for pair in pairs]
    known = {pair.id: pair for pair in read_pairs(folder, run_.split, "train")}
    index = workspace.read(f"data/{config.task.name}/pair_index")
    neighbours = known_neighbours(index, run_.split, part, known, shown.top_k)
    random = derived_random(run_.seed, "neighbours shown", part)
    return [(pair, neighbours[pair.id] if random.random() < shown.share else []) for pair in pairs]


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
