"""What a model repeats word for word from its training documents, when nothing in the prompt says it.

For an answer given without documents: the longest span of words that stands verbatim in a training document, as a
share of the answer's words. Spans shorter than SEED words are common phrases and count as none; so do spans that
the question already holds. The base model, which never saw the documents, shows how much is chance.

Source: after the verbatim memorisation of Carlini et al. 2023, arXiv:2202.07646.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from stages.evaluation.answers import words

SEED = 5  # words


@dataclass(frozen=True)
class Span:
    """The longest verbatim span of an answer; document is the number of the training document it stands in."""

    num_words: int
    num_answer_words: int
    text: str = ""
    document: int = -1

    @property
    def share(self) -> float:
        """Of the answer's words; 0 for an empty answer."""
        return self.num_words / self.num_answer_words if self.num_answer_words else 0.0


class TrainingText:
    """Training documents, indexed by every SEED words in a row."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._documents = [words(document) for document in documents]
        self._places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for number, document in enumerate(self._documents):
            for at in range(len(document) - SEED + 1):
                self._places[tuple(document[at : at + SEED])].append((number, at))

    def longest_copy(self, answer: str, question: str = "") -> Span:
        """The longest span of `answer` that stands in a document and not in the question; the first of equals."""
        found, asked = words(answer), f" {' '.join(words(question))} "
        best = Span(0, len(found))
        for start in range(len(found) - SEED + 1):
            for number, at in self._places.get(tuple(found[start : start + SEED]), ()):
                length = _common_prefix(found[start:], self._documents[number][at:])
                text = " ".join(found[start : start + length])
                if length > best.num_words and f" {text} " not in asked:
                    best = Span(length, len(found), text, number)
        return best


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> int:
    for length, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return length
    return min(len(a), len(b))
