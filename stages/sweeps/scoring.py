"""How a trained job is measured, a scorer for each stage that trains, all on validation data.

The test split has no part in a choice: what was chosen by it would look better in the report than it is. Validation
data also decided when each training stopped, so the best job's number is still a little too good; the report of
`dvc repro` on the test split, after the choice is adopted, is the honest one. The book has no third part: its held-out
sections are all that a book adapter can be chosen by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.sweeps.metrics import METRICS
from stages.sweeps.scores import Scores
from stages.sweeps.settings import Config

PART = "validation"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Scorer:
    """measure: from the stage's settings and the job's workspace to scores. metrics: the default choice comes first."""

    measure: Callable[[Any, Config, Workspace], Scores]
    metrics: tuple[str, ...]

    def score(self, settings: Any, sweep: Config, workspace: Workspace) -> dict[str, Any]:
        """What goes into scores.json: every item, and each metric with its interval."""
        _set_up(sweep)
        scores = self.measure(settings, sweep, workspace)
        found = {name: METRICS[name].estimate(scores, sweep.seed, sweep.num_resamples) for name in self.metrics}
        defined = {name: estimate.to_json() for name, estimate in found.items() if math.isfinite(estimate.value)}
        return {"scores": scores.to_json(), "metrics": defined}


def _set_up(sweep: Config) -> None:
    import torch

    if sweep.num_threads:
        torch.set_num_threads(sweep.num_threads)


def spread(items: Sequence[Item], num: int) -> list[Item]:
    """So many of them, from all over the list, where questions on one document stand together; 0: all."""
    taken = min(num or len(items), len(items))
    return [items[k * len(items) // taken] for k in range(taken)]


def of_answers(adapter: Callable[[Any], str]) -> Callable[[Any, Config, Workspace], Scores]:
    """For an adapter that answers with documents: the loss of the reference answers, exact match and token F1.

    adapter: from the settings to its folder, relative.
    """

    def measure(settings: Any, sweep: Config, workspace: Workspace) -> Scores:
        from stages.evaluation.answering import answer_conditions, clusters
        from stages.evaluation.answers import scores
        from stages.generation.loading import load_model, load_tokenizer
        from stages.prompts.renderer import Renderer
        from stages.training.example_adapter import of_styles

        file = workspace.read(f"data/{settings.domain}/rag/{PART}.jsonl")
        asked = [example for example in of_styles(file, settings.styles) if example.kind != "boundary"]
        asked = spread(asked, sweep.num_questions)
        if not asked:
            raise DataError(f"{file}: no question to choose by")
        base = workspace.read(f"models/{settings.domain}/book_merged")
        model = load_model(base, settings.model, workspace.read(adapter(settings)))
        conditions = {"documents": [(example, example.documents) for example in asked]}
        sizes = sweep.max_new_tokens, sweep.batch_size
        renderer = Renderer(settings.prompt, load_tokenizer(base))
        found = answer_conditions(model, renderer, conditions, *sizes, "validation")["documents"]
        answers = [found[example.id] for example in asked]
        fits = [scores(answer.text, e.answer, e.key_fact) for answer, e in zip(answers, asked, strict=True)]
        columns = {
            "nll": [[answer.nll for answer in answers]],
            **{name: [[fit[name] for fit in fits]] for name in ("exact_match", "token_f1")},
        }
        weights = [float(answer.num_tokens) for answer in answers]
        groups = [[cluster] for cluster in clusters(asked)]
        return Scores([settings.seed], [example.id for example in asked], groups, columns, weights, [])

    return measure


def of_book(settings: Any, sweep: Config, workspace: Workspace) -> Scores:
    """For a book adapter: how well it predicts the sections that were held out."""
    from stages.generation.loading import load_model, load_tokenizer, resolve_base
    from stages.generation.perplexity import perplexity
    from stages.knowledge.book import section_texts, split_book
    from stages.knowledge.knowledge_base import read_chunks

    chunks = read_chunks(workspace.read(f"data/{settings.domain}/knowledge.sqlite"))
    _, held_out = split_book(chunks, settings.held_out_share)
    texts = spread(section_texts(held_out), sweep.num_questions)
    base = resolve_base(workspace, settings.model)
    model = load_model(base, settings.model, workspace.read(f"models/{settings.domain}/book_lora"))
    found = perplexity(model, load_tokenizer(base), texts, settings.training.max_length, settings.training.batch_size)
    ids = [f"section {number}" for number in range(len(texts))]
    columns = {"nll": [[score.nll for score in found]]}
    return Scores([settings.seed], ids, [[name] for name in ids], columns, [float(s.num_tokens) for s in found], [])


def of_pairs(settings: Any, sweep: Config, workspace: Workspace) -> Scores:
    """For a model that writes numbers: expected values of the validation pairs of the first split, for every seed."""
    from stages.generation.loading import load_tokenizer, resolve_base
    from stages.regression.adapter_switch import AdapterSwitch
    from stages.regression.pair_index import known_neighbours, read_pairs
    from stages.regression.pair_prompts import PairRenderer
    from stages.regression.predictor import Predictor

    task = settings.task
    split, seeds = next(iter(settings.seeds.items()))
    folder = workspace.read(f"data/{task.name}/pairs")
    pairs = read_pairs(folder, split, PART, sweep.num_questions)
    if not pairs:
        raise DataError(f"{folder}/{split}/{PART}.jsonl: no pair to choose by")
    base = resolve_base(workspace, settings.model)
    tokenizer, switch = load_tokenizer(base), AdapterSwitch(base, settings.model)
    renderer = PairRenderer(task, tokenizer, settings.training.max_length)
    shown: dict[str, Any] = {}
    if settings.neighbours.top_k and settings.neighbours.share:  # as the model was taught to read them
        index = workspace.read(f"data/{task.name}/pair_index")
        known = {pair.id: pair for pair in read_pairs(folder, split, "train")}
        shown = known_neighbours(index, split, PART, known, settings.neighbours.top_k)
    prompts = [renderer.prompt_ids(pair.a, pair.b, shown.get(pair.id, [])).input_ids for pair in pairs]
    truth, ids = [pair.value for pair in pairs], [pair.id for pair in pairs]
    columns: dict[str, list[list[float]]] = {"predicted": [], "crps": []}
    for seed in seeds:
        adapter = workspace.read(f"models/{task.name}/regression/{settings.variant}/{split}/seed-{seed}")
        predicted = Predictor(switch.use(adapter), tokenizer, task, sweep.batch_size).predict(ids, prompts)
        numbers = predicted.expected if predicted.head is None else predicted.head
        columns["predicted"].append(numbers.clip(task.low, task.high).tolist())
        columns["crps"].append(_crps(predicted, truth))
    return Scores(list(seeds), ids, [[pair.a_id, pair.b_id] for pair in pairs], columns, [], truth)


def _crps(predicted: Any, truth: list[float]) -> list[float]:
    """[N], in the task's own unit."""
    import torch

    from stages.regression.losses import distribution_loss

    probabilities, values = torch.from_numpy(predicted.probabilities), torch.from_numpy(predicted.values)
    losses: list[float] = distribution_loss(
        "crps", probabilities.log(), values, torch.tensor(truth, dtype=torch.float64)
    ).tolist()
    return losses


def _rag_adapter(settings: Any) -> str:
    return str(Path("models") / settings.domain / "rag_lora")


def _style_adapter(settings: Any) -> str:
    return str(Path("models") / settings.domain / "styles" / settings.variant)


ANSWER_METRICS = ("loss", "exact_match", "token_f1")

SCORERS: dict[str, Scorer] = {
    "train_rag_lora": Scorer(of_answers(_rag_adapter), ANSWER_METRICS),
    "train_style": Scorer(of_answers(_style_adapter), ANSWER_METRICS),
    "train_book_lora": Scorer(of_book, ("perplexity",)),
    "train_regression": Scorer(of_pairs, ("mae", "r2", "crps")),
}
