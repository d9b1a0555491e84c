"""How far a model's answers are from the persona's, in style rather than content.

Style is what a writer does everywhere: how often the function words come (the most frequent words, after Burrows
2002, "Delta") and which characters follow each other (n-grams, Kestemont 2014). The distance is the mean of the
cosine distances of both relative frequencies (Smith & Aldridge 2011); 0 is the same style, 1 nothing in common.

Answers to the same question share words because they share the subject. So the held-out source documents are cut
in two halves, and a model's answers to one half are compared with the persona's answers to the other:

    floor     the persona against itself, in the same way: no imitation comes nearer but by chance
    ceiling   unrelated text against the persona
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.core.errors import DataError
from stages.core.seeding import derived_random
from stages.evaluation.answers import words
from stages.evaluation.intervals import Estimate, jackknife_interval

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

NUM_FUNCTION_WORDS = 100
NUM_NGRAMS = 500
NGRAM = 3
MIN_CLUSTERS = 4  # two in each half, so that one can be left out


@dataclass(frozen=True)
class StyleSpace:
    """The features that are counted, taken from the persona's training answers."""

    function_words: tuple[str, ...]
    ngrams: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> StyleSpace:
        """The words and n-grams that stand in most of `texts`; ties in alphabetical order."""
        in_words, in_ngrams = Counter[str](), Counter[str]()
        for text in texts:
            in_words.update(set(words(text)))
            in_ngrams.update(set(_ngrams(text)))
        return cls(_most_common(in_words, NUM_FUNCTION_WORDS), _most_common(in_ngrams, NUM_NGRAMS))

    def counts(self, text: str) -> list[float]:
        """How often each function word, then each n-gram, stands in a text."""
        in_words, in_ngrams = Counter(words(text)), Counter(_ngrams(text))
        return [float(in_words[word]) for word in self.function_words] + [
            float(in_ngrams[ngram]) for ngram in self.ngrams
        ]

    def summed(self, texts: Sequence[str]) -> Floats:
        """The counts of all texts together."""
        import numpy as np

        return np.array([self.counts(text) for text in texts]).sum(axis=0)

    def distance(self, a: Floats, b: Floats) -> float:
        """Of two count vectors, each summed over texts."""
        cut = len(self.function_words)
        return (_cosine_distance(a[:cut], b[:cut]) + _cosine_distance(a[cut:], b[cut:])) / 2


def style_distance(
    space: StyleSpace, texts: Sequence[str], persona: Sequence[str], clusters: Sequence[Hashable], seed: int
) -> Estimate:
    """The distance of `texts` from `persona`, both answers to the same questions, across halves of the clusters.

    The interval leaves out one cluster at a time. Raises DataError below MIN_CLUSTERS.
    """
    import numpy as np

    names = sorted(set(clusters), key=str)
    if len(names) < MIN_CLUSTERS:
        raise DataError(f"style: {len(names)} source documents are too few to compare two halves of them")
    derived_random(seed, "style halves").shuffle(names)
    numbers = {name: number for number, name in enumerate(names)}
    ours, theirs = _sums(space, texts, clusters, numbers), _sums(space, persona, clusters, numbers)
    first = np.arange(len(names)) < len(names) // 2

    def across(keep: Any) -> float:
        one, two = keep & first, keep & ~first
        there = space.distance(ours[one].sum(0), theirs[two].sum(0))
        return (there + space.distance(ours[two].sum(0), theirs[one].sum(0))) / 2

    everything = np.ones(len(names), dtype=bool)
    value = across(everything)
    left_out = [across(everything & (np.arange(len(names)) != number)) for number in range(len(names))]
    low, high = jackknife_interval(value, left_out)
    return Estimate(value, max(low, 0.0), min(high, 1.0), len(texts))


def _sums(space: StyleSpace, texts: Sequence[str], clusters: Sequence[Hashable], numbers: Any) -> Floats:
    """Feature counts per cluster, [clusters, features]."""
    import numpy as np

    sums = np.zeros((len(numbers), len(space.function_words) + len(space.ngrams)))
    for text, cluster in zip(texts, clusters, strict=True):
        sums[numbers[cluster]] += space.counts(text)
    return sums


def _ngrams(text: str) -> list[str]:
    """Character n-grams over normalised words, a blank at each border."""
    joined = f" {' '.join(words(text))} "
    return [joined[at : at + NGRAM] for at in range(len(joined) - NGRAM + 1)]


def _most_common(counts: Counter[str], limit: int) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda item: (-counts[item], item))[:limit])


def _cosine_distance(a: Floats, b: Floats) -> float:
    """1 - cosine; a side without any of the features has nothing in common with the other."""
    import numpy as np

    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - float(a @ b) / norm if norm else 1.0
