"""Documents shortened until a prompt fits: at sentence ends, the least needed first, then left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

from stages.knowledge.chunking import sentence_ends


def fit_documents(
    documents: Sequence[str], need: Sequence[int], num_tokens: Callable[[list[str]], int], max_length: int
) -> list[str] | None:
    """The documents, shortened or "" where nothing is left, so that `num_tokens(documents) <= max_length`.

    need: a rank for each document; the highest is shortened first. num_tokens: length of the whole example with
    these documents. None where it is too long even without documents.
    """
    kept = list(documents)

    def length(place: int, text: str) -> int:
        return num_tokens([other for other in (*kept[:place], text, *kept[place + 1 :]) if other])

    if num_tokens(kept) <= max_length:
        return kept
    for place in sorted(range(len(kept)), key=lambda p: (need[p], p), reverse=True):
        starts = [kept[place][:end] for end in (0, *sentence_ends(kept[place])[:-1])]
        num_fitting = bisect_right(starts, max_length, key=partial(length, place))
        kept[place] = starts[max(0, num_fitting - 1)]
        if num_fitting:
            return kept
    return None
