"""Texts as sets of word trigrams, and exact joins over them: which texts are alike, which one quotes another.

    shingler = Shingler()
    a, b = shingler("She left. The door stayed open."), shingler("she left; the door stayed shut")
    # {she left the, left the door, the door stayed, door stayed open} and the like: Jaccard 3 / 5
    list(similar_pairs([a, b], 0.6))    # [(0, 1)]
    list(quoting_pairs([a], [b], 0.75)) # [(0, 0, 0.75)]: text 0 holds 3 of the 4 trigrams of a

Both joins are exact, not sketches: by the prefix principle, sets that share enough must share one of their few
rarest elements (Chaudhuri et al., "A primitive operator for similarity joins", ICDE 2006; Bayardo et al.,
"Scaling up all pairs similarity search", WWW 2007), so only those are looked up.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import ceil

WORD = re.compile(r"\w+")
VOCABULARY_BITS = 24  # room for 16 M distinct words
TOLERANCE = 1e-9  # thresholds such as 0.8 * 5 must not round up to 5

Shingles = frozenset[int]


def words(text: str) -> list[str]:
    """Words without case and punctuation."""
    return WORD.findall(text.casefold())


class Shingler:
    """Turns texts into comparable sets; only sets of one Shingler can be compared.

    A text shorter than a trigram is one shingle of all its words; a text without words has none. No shingle spans
    two texts.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, *texts: str) -> Shingles:
        return frozenset().union(*(self._shingles(text) for text in texts))

    def _shingles(self, text: str) -> Shingles:
        numbers = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in words(text)]
        if len(numbers) in (1, 2):
            return frozenset([numbers[0] << VOCABULARY_BITS | numbers[-1]])
        triples = zip(numbers, numbers[1:], numbers[2:], strict=False)
        return frozenset([a << 2 * VOCABULARY_BITS | b << VOCABULARY_BITS | c for a, b, c in triples])


def similar_pairs(sets: Sequence[Shingles], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs i < j with Jaccard similarity |A & B| / |A | B| >= threshold > 0; empty sets are like nothing.

    Of n equal sets, n - 1 pairs come (each with the first), not n * (n - 1) / 2: enough for clusters.
    """
    firsts: dict[Shingles, int] = {}
    for number, shingles in enumerate(sets):
        if shingles and (first := firsts.setdefault(shingles, number)) != number:
            yield first, number
    rarity = Counter(element for shingles in firsts for element in shingles)
    posted: dict[int, list[int]] = defaultdict(list)
    # Smallest first: whoever is looked up is then never larger than who looks, which bounds the prefix
    for number in sorted(firsts.values(), key=lambda n: (len(sets[n]), n)):
        mine = sets[number]
        prefix = _rarest(mine, rarity, len(mine) - ceil(threshold * len(mine) - TOLERANCE) + 1)
        for other in sorted({candidate for element in prefix for candidate in posted[element]}):
            if _jaccard_reaches(sets[other], mine, threshold):
                yield min(other, number), max(other, number)
        for element in prefix:
            posted[element].append(number)


def quoting_pairs(
    quotes: Sequence[Shingles], texts: Sequence[Shingles], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """(quote, text, share) wherever a text holds a share >= threshold of a quote's shingles; ordered by both."""
    rarity = Counter(element for shingles in texts for element in shingles)
    prefixes = [_rarest(q, rarity, len(q) - ceil(threshold * len(q) - TOLERANCE) + 1) if q else [] for q in quotes]
    wanted = {element for prefix in prefixes for element in prefix}
    posted: dict[int, list[int]] = defaultdict(list)
    for number, shingles in enumerate(texts):
        for element in shingles & wanted:
            posted[element].append(number)
    for number, (quote, prefix) in enumerate(zip(quotes, prefixes, strict=True)):
        for text in sorted({candidate for element in prefix for candidate in posted.get(element, ())}):
            share = len(quote & texts[text]) / len(quote)
            if share >= threshold - TOLERANCE:
                yield number, text, share


def _rarest(shingles: Iterable[int], rarity: Counter[int], count: int) -> list[int]:
    return sorted(shingles, key=lambda element: (rarity[element], element))[:count]


def _jaccard_reaches(smaller: Shingles, larger: Shingles, threshold: float) -> bool:
    if len(smaller) < threshold * len(larger) - TOLERANCE:
        return False
    shared = len(smaller & larger)
    return shared >= threshold * (len(smaller) + len(larger) - shared) - TOLERANCE
