"""Texts of a prompt shortened evenly until it fits: the longest first, and all that are cut to one length.

Where a prompt has documents, each is needed to another degree, and stages.knowledge.fitting leaves out whole ones; a
pair and its neighbours are of no use unless something stands of each text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from stages.core.errors import DataError

MIN_CHARS = 24  # of a text that is cut: a few words, by which it can still be told from another


def shorten_evenly(texts: Sequence[str], fits: Callable[[list[str]], bool], where: str) -> list[str]:
    """The texts as they are where they fit, else each cut at a word end to at most the same number of characters.

    fits: whether a prompt with these texts is short enough. Raises DataError, which begins with `where`, when
    MIN_CHARS characters of each are still too much.
    """
    whole = list(texts)
    if fits(whole):
        return whole
    sizes = range(max(map(len, whole), default=0), MIN_CHARS - 1, -1)
    place = bisect_left(sizes, True, key=lambda size: fits([cut(text, size) for text in whole]))
    if place == len(sizes):
        raise DataError(f"{where}: too long even with every text cut to {MIN_CHARS} characters; allow more tokens")
    return [cut(text, sizes[place]) for text in whole]


def cut(text: str, size: int) -> str:
    """At most `size` characters, up to a word end; through a word only where one fills the text (or has no blanks)."""
    if len(text) <= size:
        return text
    end = text.rfind(" ", MIN_CHARS, size + 1)
    return text[: end if end > 0 else size].rstrip()


def num_shortened(before: Sequence[str], after: Sequence[str]) -> int:
    """How many texts are not what they were."""
    return sum(old != new for old, new in zip(before, after, strict=True))
