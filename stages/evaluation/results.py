"""From what was measured, question by question, to the numbers of reports/<domain>/metrics.json.

Every number is {"value", "low", "high", "n"}, a 95 % interval clustered by source document; a comparison is
{"difference", "low", "high", "p", "n"}. A key whose data a domain does not have is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.evaluation import answers as answer_metrics
from stages.evaluation import grounding, rankings
from stages.evaluation.ablation import VARIANTS, Rankings
from stages.evaluation.answering import Answer, clusters
from stages.evaluation.intervals import Difference, Estimate, mean_estimate, paired_difference, ratio_estimate
from stages.evaluation.memorisation import Span
from stages.evaluation.style_adapters import StyleAdapters
from stages.generation.perplexity import TextScore
from stages.knowledge.records import Example

MODELS = ("base", "book", "tuned")
SYSTEMS = {
    "base": ("base", "no_documents"),
    "base_docs": ("base", "documents"),
    "book": ("book", "no_documents"),
    "book_docs": ("book", "documents"),
    "tuned": ("tuned", "no_documents"),
    "tuned_docs": ("tuned", "documents"),
}
GROUNDING = {"gold": "gold", "gold_distractor": "gold_distractor", "distractor": "distractor", "none": "no_documents"}
COMPARISONS = (("tuned_docs", "base_docs"), ("tuned_docs", "book_docs"), ("tuned_docs", "tuned"))
RANKED_PAIRS = (("questions", "text"), ("questions", "answers"))
ANSWER_METRICS = (*answer_metrics.METRICS, "loss")

Tree = dict[str, Any]  # of Estimate and Difference


@dataclass
class Results:
    """answers: model -> condition -> example id. perplexity: model -> text set. style: see `Tree`."""

    questions: list[Example]
    boundary: list[Example]
    grounded: list[Example]
    answers: dict[str, dict[str, dict[str, Answer]]] = field(default_factory=dict)
    searched: list[Example] = field(default_factory=list)
    rankings: dict[str, Rankings] = field(default_factory=dict)
    perplexity: dict[str, dict[str, list[TextScore]]] = field(default_factory=dict)
    style: dict[str, Estimate] = field(default_factory=dict)
    copied: dict[str, dict[str, Span]] = field(default_factory=dict)  # model -> example id
    parity: list[float] = field(default_factory=list)
    style_adapters: StyleAdapters | None = None

    def scores(self, model: str, condition: str, metric: str, examples: Sequence[Example]) -> list[float]:
        """One metric of one model under one condition, per example."""
        texts = self.texts(model, condition, examples)
        return [answer_metrics.scores(t, e.answer, e.key_fact)[metric] for t, e in zip(texts, examples, strict=True)]

    def texts(self, model: str, condition: str, examples: Sequence[Example]) -> list[str]:
        """What a model wrote under a condition, in the order of `examples`."""
        found = self.answers[model][condition]
        return [found[example.id].text for example in examples]


@dataclass(frozen=True)
class Summary:
    """Turns results into estimates; the seed makes them reproducible."""

    results: Results
    seed: int
    num_resamples: int

    def tree(self) -> Tree:
        """All keys that the data allow."""
        results = self.results
        tree: Tree = {
            "answers": {
                name: self._answers(*place, results.questions, ANSWER_METRICS) for name, place in SYSTEMS.items()
            },
            "compare": {
                **{f"{a}_vs_{b}": self._compare(a, b) for a, b in COMPARISONS},
                # exact match also asks for the persona's manner, which only a tuned model can know
                "tuned_docs_vs_base_docs_contains": self._compare("tuned_docs", "base_docs", "contains"),
            },
            "memorisation": {model: {"verbatim_overlap": self._copied(model)} for model in results.copied},
            "perplexity": {
                m: {s: self._perplexity(t) for s, t in sets.items()} for m, sets in results.perplexity.items()
            },
            "prompt": {"parity": self._mean(results.parity, results.questions + results.boundary)},
            "style": {name: {"distance": e} if name in SYSTEMS else e for name, e in results.style.items()},
        }
        if results.boundary:
            kept = ("exact_match", "loss")
            tree["boundary"] = {m: self._answers(m, "boundary", results.boundary, kept) for m in MODELS}
        if results.grounded:
            tree["grounding"] = {model: self._grounding(model) for model in MODELS}
        if results.style_adapters:
            tree["style_adapters"] = {
                "answers": results.style_adapters.answers(self.seed, self.num_resamples),
                "nearer": results.style_adapters.comparisons(results.questions, self.seed, self.num_resamples),
            }
        if ranked := self.ranked():
            tree["retrieval"] = {variant: self._retrieval(variant, ranked) for variant in VARIANTS}
            tree["compare"] |= {f"retrieval_{a}_vs_{b}": self._compare_retrieval(a, b, ranked) for a, b in RANKED_PAIRS}
        return tree

    def ranked(self) -> list[Example]:
        """The questions whose evidence is known and which every variant has searched for."""
        return [
            e for e in self.results.searched if e.evidence and all(e.id in r for r in self.results.rankings.values())
        ]

    def _answers(self, model: str, condition: str, examples: Sequence[Example], metrics: Sequence[str]) -> Tree:
        return {metric: self._answer_metric(model, condition, examples, metric) for metric in metrics}

    def _answer_metric(self, model: str, condition: str, examples: Sequence[Example], metric: str) -> Estimate:
        if metric != "loss":
            return self._mean(self.results.scores(model, condition, metric, examples), examples)
        found = [self.results.answers[model][condition][example.id] for example in examples]
        nll, tokens = [answer.nll for answer in found], [float(answer.num_tokens) for answer in found]
        return ratio_estimate(nll, tokens, clusters(examples), self.seed, self.num_resamples)

    def _grounding(self, model: str) -> Tree:
        kept = ("exact_match", "loss")
        conditions = {name: GROUNDING[name] for name in grounding.CONDITIONS}
        return {name: self._answers(model, place, self.results.grounded, kept) for name, place in conditions.items()}

    def _compare(self, a: str, b: str, metric: str = "exact_match") -> Difference:
        questions = self.results.questions
        ours, theirs = (self.results.scores(*SYSTEMS[name], metric, questions) for name in (a, b))
        return paired_difference(ours, theirs, clusters(questions), self.seed, self.num_resamples)

    def _retrieval(self, variant: str, ranked: Sequence[Example]) -> Tree:
        return {m: self._mean(self._retrieval_scores(variant, ranked, m), ranked) for m in rankings.METRICS}

    def _retrieval_scores(self, variant: str, ranked: Sequence[Example], metric: str) -> list[float]:
        found = self.results.rankings[variant]
        return [rankings.scores(found[e.id], set(e.evidence))[metric] for e in ranked]

    def _compare_retrieval(self, a: str, b: str, ranked: Sequence[Example], metric: str = "recall_at_2") -> Difference:
        ours, theirs = (self._retrieval_scores(variant, ranked, metric) for variant in (a, b))
        return paired_difference(ours, theirs, clusters(ranked), self.seed, self.num_resamples)

    def _copied(self, model: str) -> Estimate:
        spans = self.results.copied[model]
        return self._mean([spans[e.id].share for e in self.results.questions], self.results.questions)

    def _perplexity(self, scores: Sequence[TextScore]) -> Estimate:
        """exp of the loss per token; the interval is that of the loss, each text (section, topic) a cluster."""
        nll, tokens = [score.nll for score in scores], [float(score.num_tokens) for score in scores]
        loss = ratio_estimate(nll, tokens, range(len(scores)), self.seed, self.num_resamples)
        low, high = (None if end is None else math.exp(end) for end in (loss.low, loss.high))
        return Estimate(math.exp(loss.value), low, high, loss.n)

    def _mean(self, values: Sequence[float], examples: Sequence[Example]) -> Estimate:
        return mean_estimate(values, clusters(examples), self.seed, self.num_resamples)


def as_json(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates and differences as plain numbers."""
    return {
        key: as_json(value) if isinstance(value, Mapping) else value.to_json() for key, value in sorted(tree.items())
    }
