"""Where the tokens of a long text lie, so that any part of it can be measured without tokenising it again.

    places = TokenPlaces("The mill of Bako.", [(0, 17)], token_starts)
    places.count(0, 8)              # 2
    places.reach(0, 3, end=17)      # 12: three tokens from 0 on end before 12

Tokens at the ends of a part may be others when it stands alone; `exact` asks the tokenizer.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat, zip_longest

STRETCH_CHARS = 20_000  # so much text is tokenised at once: a paragraph without end must not fill the memory
STRETCHES_AT_ONCE = 32

# Texts -> for each of them the offsets in characters at which its tokens begin: as many as it has tokens
TokenStarts = Callable[[Sequence[str]], Sequence[Sequence[int]]]


class TokenPlaces:
    """spans: (begin, end) of the parts of the text, in order; what stands between them is tokenised on its own."""

    def __init__(self, text: str, spans: Sequence[tuple[int, int]], token_starts: TokenStarts) -> None:
        self._token_starts = token_starts
        self._places = array("q", _places(text, spans, token_starts))

    def count(self, begin: int, end: int) -> int:
        """How many tokens begin there."""
        return bisect_left(self._places, end) - bisect_left(self._places, begin)

    def exact(self, text: str) -> int:
        """How many tokens a text has that stands alone."""
        return len(self._token_starts([text])[0]) if text else 0

    def reach(self, begin: int, num_tokens: int, end: int) -> int:
        """How far so many tokens go from `begin` on, at most to `end`."""
        place = bisect_left(self._places, begin) + num_tokens
        return min(self._places[place], end) if place < len(self._places) else end

    def reach_back(self, end: int, num_tokens: int) -> int:
        """Where so many tokens before `end` begin."""
        return self._places[max(0, bisect_left(self._places, end) - num_tokens)]


def _places(text: str, spans: Sequence[tuple[int, int]], token_starts: TokenStarts) -> Iterator[int]:
    stretches = [stretch for span in spans for stretch in _stretches(text, *span)]
    gap_tokens = {"": 0}
    for first in range(0, len(stretches), STRETCHES_AT_ONCE):
        batch = stretches[first : first + STRETCHES_AT_ONCE + 1]
        starts = token_starts([text[begin:end] for begin, end in batch[:STRETCHES_AT_ONCE]])
        for (begin, end), places, following in zip_longest(batch[:STRETCHES_AT_ONCE], starts, batch[1:]):
            yield from (begin + place for place in places)
            gap = text[end : following[0]] if following else ""
            if gap not in gap_tokens:
                gap_tokens[gap] = len(token_starts([gap])[0])
            yield from repeat(end, gap_tokens[gap])


def _stretches(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    while begin < end:
        stop = min(begin + STRETCH_CHARS, end)
        if stop < end and (space := text.rfind(" ", begin, stop)) > begin:
            stop = space
        yield begin, stop
        begin = stop
