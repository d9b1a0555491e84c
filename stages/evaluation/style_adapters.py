"""Several manners from one knowledge model: does each adapter know its subject, and does it speak in its own manner?

An adapter answers, with documents, the held-out questions of its own styles (is it right?) and those that the tuned
model is measured on (does it differ?). On the latter each answer's distance from the manner of an adapter, which is
that of the training answers of its styles, is compared question by question: an adapter that has learned its manner
is nearer to it than the others are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from stages.evaluation import answers as answer_metrics
from stages.evaluation.answering import Answer, clusters
from stages.evaluation.intervals import Difference, Estimate, mean_estimate, paired_difference
from stages.evaluation.style import StyleSpace
from stages.knowledge.records import Example

if TYPE_CHECKING:
    from stages.evaluation.style import Floats

TUNED = "tuned"  # the adapter of train_rag_lora, which the others are compared with


@dataclass(frozen=True)
class Manner:
    """questions: held out, of the adapter's own styles. trained_answers: what it learned to sound like."""

    questions: list[Example]
    trained_answers: list[str]


@dataclass
class StyleAdapters:
    """manners: adapter -> its own; the tuned model is one of them.

    own, shared: adapter -> example id -> answer, to the questions of its own styles and to those of the tuned model.
    """

    manners: dict[str, Manner]
    own: dict[str, dict[str, Answer]] = field(default_factory=dict)
    shared: dict[str, dict[str, Answer]] = field(default_factory=dict)

    def answers(self, seed: int, num_resamples: int) -> dict[str, dict[str, Estimate]]:
        """Adapter -> metric, on the questions of its own styles; an adapter without any is left out."""
        return {
            name: {metric: self._own(name, metric, seed, num_resamples) for metric in answer_metrics.METRICS}
            for name, manner in self.manners.items()
            if manner.questions
        }

    def comparisons(self, questions: Sequence[Example], seed: int, num_resamples: int) -> dict[str, Difference]:
        """`a_vs_b`: how much nearer a is to its own manner than b is (distances, b less a), on shared questions."""
        space = StyleSpace.of([text for manner in self.manners.values() for text in manner.trained_answers])
        counts = {name: self._counts(space, name, questions) for name in self.manners}
        groups, found = clusters(questions), {}
        for name, other in permutations(self.manners, 2):
            manner = space.summed(self.manners[name].trained_answers)
            ours, theirs = ([space.distance(answer, manner) for answer in counts[model]] for model in (name, other))
            found[f"{name}_vs_{other}"] = paired_difference(theirs, ours, groups, seed, num_resamples)
        return found

    def _own(self, name: str, metric: str, seed: int, num_resamples: int) -> Estimate:
        questions = self.manners[name].questions
        values = [answer_metrics.scores(self.own[name][e.id].text, e.answer, e.key_fact)[metric] for e in questions]
        return mean_estimate(values, clusters(questions), seed, num_resamples)

    def _counts(self, space: StyleSpace, model: str, questions: Sequence[Example]) -> list[Floats]:
        return [space.summed([self.shared[model][example.id].text]) for example in questions]


def manners_of(
    parts: Mapping[str, Sequence[Example]], styles: Mapping[str, Sequence[str]], limit: int
) -> dict[str, Manner]:
    """parts: split -> examples. styles: adapter -> styles of its answers (none given: all). No boundary rows."""
    manners = {}
    for name, wanted in styles.items():
        train, test = (
            [e for e in parts[split] if e.kind != "boundary" and e.is_of(wanted)] for split in ("train", "test")
        )
        asked = test[: limit or None]  # as those of the tuned model are, so that its own are among the shared ones
        manners[name] = Manner([e for e in asked if not e.abstains], [e.answer for e in train if not e.abstains])
    return manners
