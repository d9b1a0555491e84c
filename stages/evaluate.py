"""Four models side by side, on questions that training never saw: base, base with documents, tuned, tuned with
documents; and between them the book model, which the tuned one is built on. Then the adapters of other manners.

Retrieval, grounding, perplexity, style, memorisation and prompt parity, each number with a 95 % interval.

    reads   data/<domain>/{rag,index,knowledge.sqlite}, models/base/<model>,
            models/<domain>/{book_merged,rag_lora,styles};
            for the report, reports/<domain>/<stage>/{metrics.json,curve.csv} of the stages before
    writes  reports/<domain>/metrics.json, headline.json, report.md, figures/*.png, plots/*.csv

    python -m stages.evaluate
    python -m stages.evaluate evaluate.limit=20
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.schema import Embedder, Model, Prompt
from stages.core.seeding import seed_everything
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.evaluation.ablation import rank_by_variant
from stages.evaluation.answer_cache import answers_key, remembered
from stages.evaluation.answering import Condition, answer_conditions, clusters
from stages.evaluation.grounding import Documents, grounding_documents
from stages.evaluation.headline import domain_headline
from stages.evaluation.inputs import read_inputs, unrelated_answers
from stages.evaluation.memorisation import TrainingText
from stages.evaluation.parity import parity
from stages.evaluation.publishing import publish
from stages.evaluation.results import SYSTEMS, Results, Summary, as_json
from stages.evaluation.style import MIN_CLUSTERS, StyleSpace, style_distance
from stages.evaluation.style_adapters import TUNED, StyleAdapters
from stages.generation.loading import check_adapter, load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import TextScore, perplexity
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer


@dataclass
class Config:
    """Mirrors conf/evaluate/default.yaml."""

    domain: str = MISSING
    model: Model = MISSING
    embedder: Embedder = MISSING
    prompt: Prompt = MISSING
    seed: int = MISSING
    kinds: list[str] = field(default_factory=list)
    held_out_share: float = MISSING
    max_length: int = MISSING
    max_new_tokens: int = MISSING
    batch_size: int = MISSING
    num_resamples: int = MISSING
    limit: int = 0
    num_threads: int = 0
    styles: list[str] = field(default_factory=list)
    adapters: dict[str, Any] = field(default_factory=dict)  # of train_style: name -> its settings

    @property
    def answering_styles(self) -> dict[str, list[str]]:
        """Adapter -> its styles; those of writers, who answer no questions, are for `groundtune compare`."""
        return {name: settings["styles"] for name, settings in self.adapters.items() if settings.get("styles")}

    def __post_init__(self) -> None:
        if self.limit < 0 or min(self.max_new_tokens, self.batch_size) < 1:
            raise ValueError("limit must not be negative; max_new_tokens and batch_size must be at least 1")
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples: {self.num_resamples} are too few for a 95 % interval; give at least 100")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Measures everything and writes the report; returns what stands in metrics.json."""
    evaluation = Evaluation(config, workspace)
    evaluation.measure_base()
    evaluation.measure_book_and_tuned()
    evaluation.measure_style_and_memory()
    tree = Summary(evaluation.results, config.seed, config.num_resamples).tree()
    metrics = as_json(tree)
    write_json(workspace.write(f"reports/{config.domain}/metrics.json"), metrics)
    write_json(workspace.write(f"reports/{config.domain}/headline.json"), domain_headline(metrics))
    publish(workspace, config.domain, config.model.name, evaluation.results, tree)
    return metrics


class Evaluation:
    """Measures one model after the other into `results`; a model leaves memory before the next one comes.

    What needs no model is measured, and what the models need is checked, when it is made.
    """

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self.config = config
        self._set_up()
        self.base = resolve_base(workspace, config.model)
        self.book = workspace.read(f"models/{config.domain}/book_merged")
        self.adapter = workspace.read(f"models/{config.domain}/rag_lora")
        self.answer_cache = workspace.cache("answers")
        self.renderer = Renderer(config.prompt, load_tokenizer(self.book))
        self.style_adapters = {
            name: workspace.read(f"models/{config.domain}/styles/{name}") for name in config.answering_styles
        }
        for adapter in (self.adapter, *self.style_adapters.values()):
            check_adapter(adapter, self.renderer.hash)
        self.inputs = read_inputs(
            *(workspace, config.domain, config.held_out_share, config.limit, config.styles),
            config.answering_styles,
        )
        rankings = self._rankings(workspace)
        self.documents = grounding_documents(
            self.inputs.questions, self.inputs.chunks, rankings["questions"], config.seed
        )
        self.results = Results(
            self.inputs.questions,
            self.inputs.boundary,
            [e for e in self.inputs.questions if e.id in self.documents and self._fits(e, self.documents[e.id])],
            searched=self.inputs.searched,
            rankings=rankings,
            parity=parity(self.renderer, self.inputs.questions + self.inputs.boundary),
        )

    def _set_up(self) -> None:
        import torch

        seed_everything(self.config.seed)
        if self.config.num_threads:
            torch.set_num_threads(self.config.num_threads)

    def _rankings(self, workspace: Workspace) -> dict[str, dict[str, list[str]]]:
        from stages.retrieval.index import Index

        index = Index.load(workspace.read(f"data/{self.config.domain}/index"), self.config.embedder)
        cache = workspace.cache("embeddings")
        return rank_by_variant(self.inputs.searched, index, self.config.kinds, self.config.embedder, cache)

    def _fits(self, example: Example, documents: Documents) -> bool:
        """Whether the longest of the grounding prompts leaves room for an answer."""
        prompt = self.renderer.prompt_ids(self.renderer.messages(example.question, documents["gold_distractor"]))
        return len(prompt) + self.config.max_new_tokens <= self.config.model.max_context_tokens

    def measure_base(self) -> None:
        self._measure("base", load_model(self.base, self.config.model), self.base)
        _release_memory()

    def measure_book_and_tuned(self) -> None:
        """Loads the book model once: the tuned one is the same weights with the adapter switched on."""
        tuned = load_model(self.book, self.config.model, self.adapter)
        with tuned.disable_adapter():
            self._measure("book", tuned, self.book)
        self._measure("tuned", tuned)
        if self.style_adapters:
            self._measure_style_adapters(tuned)

    def _measure_style_adapters(self, model: Any) -> None:
        """model: the tuned one; the adapters share its weights and are switched, so that none is loaded twice."""
        found = self.results.style_adapters = StyleAdapters(self.inputs.manners)
        sizes = self.config.max_new_tokens, self.config.batch_size
        shared: Condition = [(example, example.documents) for example in self.results.questions]
        found.own[TUNED] = found.shared[TUNED] = self.results.answers[TUNED]["documents"]  # its own are the shared ones
        for name, adapter in self.style_adapters.items():
            model.load_adapter(str(adapter), name)
            model.set_adapter(name)
            own: Condition = [(example, example.documents) for example in found.manners[name].questions]
            answered = answer_conditions(model, self.renderer, {"own": own, "shared": shared}, *sizes, name)
            found.own[name], found.shared[name] = answered["own"], answered["shared"]

    def _measure(self, name: str, model: Any, weights: Path | None = None) -> None:
        """weights: the folder that holds the whole model, to remember its answers by; None: they are not remembered."""
        config, conditions = self.config, self._conditions()
        sizes = (config.max_new_tokens, config.batch_size)
        answer = partial(answer_conditions, model, self.renderer, conditions, *sizes, name)
        if weights:
            key = answers_key(weights, conditions, config.model, self.renderer.hash, sizes, config.num_threads)
            self.results.answers[name] = remembered(self.answer_cache, key, answer)
        else:
            self.results.answers[name] = answer()
        if name != "tuned":  # an adapter that was trained on answers is no model of connected text
            self.results.perplexity[name] = {k: self._losses(model, texts) for k, texts in self.inputs.texts.items()}

    def _conditions(self) -> Mapping[str, Condition]:
        questions, boundary, grounded = self.results.questions, self.results.boundary, self.results.grounded
        conditions: dict[str, Condition] = {
            "no_documents": [(example, []) for example in questions],
            "documents": [(example, example.documents) for example in questions],
            "boundary": [(example, example.documents) for example in boundary],
        }
        for condition in ("gold", "gold_distractor", "distractor"):
            conditions[condition] = [(example, self.documents[example.id][condition]) for example in grounded]
        return conditions

    def _losses(self, model: Any, texts: list[str]) -> list[TextScore]:
        return perplexity(model, self.renderer.tokenizer, texts, self.config.max_length, self.config.batch_size)

    def measure_style_and_memory(self) -> None:
        """From the answers alone. Too few source documents: no style."""
        results, questions = self.results, self.results.questions
        persona, groups = [example.answer for example in questions], clusters(questions)
        voices = {"floor": persona, "ceiling": unrelated_answers(persona)}
        voices |= {name: results.texts(*place, questions) for name, place in SYSTEMS.items()}
        if len(set(groups)) >= MIN_CLUSTERS:
            space, seed = StyleSpace.of(self.inputs.trained_answers), self.config.seed
            results.style = {
                name: style_distance(space, texts, persona, groups, seed) for name, texts in voices.items()
            }
        trained = TrainingText([chunk.text for chunk in self.inputs.trained_chunks])
        for model in results.answers:
            answers = zip(questions, results.texts(model, "no_documents", questions), strict=True)
            results.copied[model] = {e.id: trained.longest_copy(text, e.question) for e, text in answers}


def _release_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
