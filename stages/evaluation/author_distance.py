"""How far answers are from an author's style, between the author himself and other authors.

The distance is that of `stages.evaluation.style` (function words, character n-grams), from the author's held-out
passages. Text on the same subject is near for that reason alone, and short text is far for that reason alone. So

- the held-out passages are cut into two halves, the first and the last; an answer to a prompt that was made from a
  passage of one half is compared with the other half only,
- the same is measured of the author's own halves (nothing can be expected to come nearer: the ceiling of what
  imitation can reach) and of other authors (the floor), in pieces as long as the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.core.errors import DataError
from stages.evaluation.answers import WORD
from stages.evaluation.intervals import Estimate, jackknife_interval
from stages.evaluation.style import StyleSpace

if TYPE_CHECKING:
    from stages.evaluation.style import Floats

MIN_PASSAGES = 4  # two in each half
MIN_TEXTS = 2  # in each half, so that one can be left out
MIN_WORDS = 5  # of an answer that says anything about style


@dataclass(frozen=True)
class AuthorDistance:
    """space: from the author's training text. held_out: his passages in order; `references` are counts per half."""

    space: StyleSpace
    held_out: Sequence[str]
    references: tuple[Floats, Floats]

    @classmethod
    def of(cls, training: Sequence[str], held_out: Sequence[str]) -> AuthorDistance:
        """Raises DataError below MIN_PASSAGES held-out passages."""
        if len(held_out) < MIN_PASSAGES:
            raise DataError(f"{len(held_out)} held-out passages; at least {MIN_PASSAGES} are needed for two halves")
        space, middle = StyleSpace.of(training), len(held_out) // 2
        return cls(space, held_out, (space.summed(held_out[:middle]), space.summed(held_out[middle:])))

    def half_of(self, number: int) -> int:
        """The half (0 or 1) that a held-out passage is in."""
        return int(number >= len(self.held_out) // 2)

    def distance(self, texts: Sequence[str], halves: Sequence[int]) -> Estimate:
        """Mean distance of the texts of either half from the author's other half; the interval leaves out a text.

        Raises DataError where a half has fewer than MIN_TEXTS.
        """
        import numpy as np

        if min(list(halves).count(half) for half in (0, 1)) < MIN_TEXTS:
            raise DataError(f"{len(texts)} texts: at least {MIN_TEXTS} in each half are needed")
        counts, sides = np.array([self.space.counts(text) for text in texts]), np.array(halves)
        sums = [counts[sides == half].sum(0) for half in (0, 1)]
        apart = [self.space.distance(sums[half], self.references[1 - half]) for half in (0, 1)]
        left_out = [
            (self.space.distance(sums[half] - own, self.references[1 - half]) + apart[1 - half]) / 2
            for own, half in zip(counts, halves, strict=True)
        ]
        value = sum(apart) / 2
        low, high = jackknife_interval(value, left_out)
        return Estimate(value, max(low, 0.0), min(high, 1.0), len(texts))

    def own_pieces(self, num_words: Sequence[int], halves: Sequence[int]) -> list[str]:
        """The author's held-out text in pieces of these lengths, each from the half that it is counted in."""
        middle = len(self.held_out) // 2
        parts = (self.held_out[:middle], self.held_out[middle:])
        return [
            _piece(parts[half], list(halves[:n]).count(half), count)
            for n, (count, half) in enumerate(zip(num_words, halves, strict=True))
        ]


def other_pieces(passages: Sequence[str], num_words: Sequence[int]) -> list[str]:
    """Other authors' passages in pieces of these lengths."""
    return [_piece(passages, number, count) for number, count in enumerate(num_words)]


def _first_words(text: str, count: int) -> str:
    """The text up to the end of its `count`-th word."""
    ends = [match.end() for match in WORD.finditer(text)]
    return text[: ends[count - 1]] if 0 < count <= len(ends) else text


def _piece(passages: Sequence[str], number: int, count: int) -> str:
    """Piece `number` of `count` words: the beginnings of the passages first, then what follows those."""
    passage, turn = passages[number % len(passages)], number // len(passages)
    starts = [match.start() for match in WORD.finditer(passage)]
    begin = turn * count
    return _first_words(passage[starts[begin] :] if begin + count <= len(starts) else passage, count)
