"""What is measured of each model that is compared, and against the first of them.

    style distance    from the author's held-out text; beside it what the author's own halves reach (the ceiling of
                      imitation) and what other authors do (the floor), in pieces as long as the answers
    loss              bits per byte of the author's and of other authors' held-out text, and how far below the first
                      model's it is: `own gain`, `other gain`, and own less other
    repetition        share of an answer's 4-grams of words that came before in it (Welleck et al. 2020)
    copying           longest span that stands word for word in the training text, as a share of the answer's words
    words             length of an answer

Intervals of 95 %: over prompts for answers, over passages for losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from stages.core.errors import DataError
from stages.evaluation.answers import words
from stages.evaluation.author_distance import MIN_TEXTS, MIN_WORDS, AuthorDistance, other_pieces
from stages.evaluation.intervals import Estimate, mean_estimate, ratio_estimate
from stages.evaluation.memorisation import Span, TrainingText
from stages.generation.perplexity import TextScore
from stages.serving.compare_models import ModelRun
from stages.serving.compare_prompts import AskedPrompt, AuthorText

NGRAM = 4
LABELS = {
    "style_distance": "style distance",
    "own_halves": "the author's own halves",
    "other_authors": "other authors",
    "own_loss": "loss on the author (bits/byte)",
    "other_loss": "loss on others (bits/byte)",
    "own_gain": "gain on the author",
    "other_gain": "gain on others",
    "own_less_other": "author's gain less others'",
    "repetition": "repetition",
    "copying": "copying",
    "words": "words",
}


@dataclass
class Measures:
    """models: name -> measure (of LABELS) -> estimate.

    longest_copies: name -> the longest verbatim span of any answer. notes: what was not measured, and why.
    """

    models: dict[str, dict[str, Estimate]]
    longest_copies: dict[str, Span] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(runs: Sequence[ModelRun], prompts: Sequence[AskedPrompt], author: AuthorText | None, seed: int) -> Measures:
    """All measures there is text for."""
    found = Measures({run.name: _of_answers(run.answers, seed) for run in runs})
    found.notes += [f"{run.name} has no chat template and was asked in plain text" for run in runs if run.plain]
    if author is None:
        found.notes.append("no author: run prepare_style for style distance, losses and copying")
        return found
    _copying(found, runs, prompts, author, seed)
    _losses(found, runs, author, seed)
    for run in runs:
        try:
            distance = AuthorDistance.of(author.training, author.held_out)
            halves = [_half(distance, prompt, number) for number, prompt in enumerate(prompts)]
            found.models[run.name] |= style_figures(distance, run.answers, halves, author.all_others)
        except DataError as error:
            found.notes.append(f"style distance of {run.name} is not measured: {error}")
    if not author.others:
        found.notes.append("no other author: give --other, or prepare a second writer")
    return found


def _of_answers(answers: Sequence[str], seed: int) -> dict[str, Estimate]:
    places = range(len(answers))
    return {
        "repetition": mean_estimate([repetition(answer) for answer in answers], places, seed),
        "words": ratio_estimate([float(len(words(answer))) for answer in answers], [1.0] * len(answers), places, seed),
    }


def repetition(text: str) -> float:
    """Share of the 4-grams of words that have come before in the text; 0 for a text without any."""
    found = words(text)
    ngrams = [tuple(found[at : at + NGRAM]) for at in range(len(found) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _copying(
    found: Measures, runs: Sequence[ModelRun], prompts: Sequence[AskedPrompt], author: AuthorText, seed: int
) -> None:
    training = TrainingText(author.training)
    for run in runs:
        spans = [training.longest_copy(answer, p.text) for answer, p in zip(run.answers, prompts, strict=True)]
        found.models[run.name]["copying"] = mean_estimate([span.share for span in spans], range(len(spans)), seed)
        found.longest_copies[run.name] = max(spans, key=lambda span: span.num_words)


def _losses(found: Measures, runs: Sequence[ModelRun], author: AuthorText, seed: int) -> None:
    first = runs[0]
    for run in runs:
        mine = found.models[run.name]
        mine["own_loss"] = _bits(run.own, None, seed)
        if author.others:
            mine["other_loss"] = _bits(run.other, None, seed)
        if run is first:
            continue
        mine["own_gain"] = _bits(first.own, run.own, seed)
        if author.others:
            mine["other_gain"] = _bits(first.other, run.other, seed)
            mine["own_less_other"] = less(mine["own_gain"], mine["other_gain"])


def _bits(scores: Sequence[TextScore], less_these: Sequence[TextScore] | None, seed: int) -> Estimate:
    """Bits per byte over all passages; with less_these, by how much they are lower, passage by passage."""
    taken = [0.0] * len(scores) if less_these is None else [score.nll for score in less_these]
    bits = [(score.nll - other) / math.log(2) for score, other in zip(scores, taken, strict=True)]
    return ratio_estimate(bits, [float(score.num_bytes) for score in scores], range(len(scores)), seed)


def less(a: Estimate, b: Estimate) -> Estimate:
    """a - b of independent estimates, with an interval from theirs (Zou & Donner 2008, Stat. Med. 27:1693)."""
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, None, None, a.n + b.n)
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - below, value + above, a.n + b.n)


def style_figures(
    distance: AuthorDistance, answers: Sequence[str], halves: Sequence[int], others: Sequence[str]
) -> dict[str, Estimate]:
    """The distance of the answers, and of the author's own and other authors' text in pieces of the same lengths.

    halves: the half of the author's text (0 or 1) that each answer counts in. others: passages of other authors.
    Raises DataError where too few answers are long enough.
    """
    lengths = {n: count for n, text in enumerate(answers) if (count := len(words(text))) >= MIN_WORDS}
    halves = [halves[number] for number in lengths]
    if min(halves.count(0), halves.count(1)) < MIN_TEXTS:
        raise DataError(f"{len(lengths)} of its answers have {MIN_WORDS} words or more")
    counts = list(lengths.values())
    found = {
        "style_distance": distance.distance([answers[number] for number in lengths], halves),
        "own_halves": distance.distance(distance.own_pieces(counts, halves), halves),
    }
    if others:
        found["other_authors"] = distance.distance(other_pieces(others, counts), halves)
    return found


def _half(distance: AuthorDistance, prompt: AskedPrompt, number: int) -> int:
    """That of the passage which the prompt was made from; else every other prompt's."""
    places = [n for n, passage in enumerate(distance.held_out) if passage == prompt.reference]
    return distance.half_of(places[0]) if places else number % 2
