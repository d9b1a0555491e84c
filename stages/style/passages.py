r"""A text cut into passages of so many tokens, at chapters and scenes where it can be, else at paragraphs.

    units = units_of("CHAPTER I\n\nIt was dark...\n\n* * *\n\nIn the morning ...")
    cut(units, token_starts, PassageSize(500, 2000))   # [Passage(text="It was dark...", num_tokens=812), ...]

Where to cut is chosen for the text as a whole, by dynamic programming over its paragraphs: passages within the limits
first, then few cuts inside a scene, then equal sizes. A passage is the author's own words in order: paragraphs are
never reordered, and what stands between two scenes of one passage stands there as the author marked it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stages.documents.read_text import CHAPTER, HEADING_CHARS, PART, paragraphs
from stages.knowledge.sentences import sentence_ends

TokenStarts = Callable[[Sequence[str]], list[list[int]]]

SENTENCE, PARAGRAPH, SCENE, CHAPTER_BREAK = range(4)  # what stands before a unit, the weakest first
CUT_COST = {SENTENCE: 4.0, PARAGRAPH: 1.0, SCENE: 0.2, CHAPTER_BREAK: 0.0}
OVER_COST = {SENTENCE: 0.0, PARAGRAPH: 0.0, SCENE: 0.3, CHAPTER_BREAK: 2.0}  # of going on over a border
LOST_COST = 50.0  # of a passage that is too short to be kept
SIZE_COST = 0.5  # of a passage at either limit; none at the middle between them

SCENE_MARK = re.compile(r"(?:[*#~_=⁂•–—-]\s*){1,80}")
MARKDOWN_HEADING = re.compile(r"#{1,6}\s+\S.*")
FRONT_MATTER = re.compile(r"\A---[^\S\n]*\n.*?\n(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class PassageSize:
    """Limits in tokens, both included."""

    min_tokens: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens // 2:
            raise ValueError("min_tokens must be at least 1 and at most half of max_tokens, or scenes cannot be cut")


@dataclass(frozen=True)
class Unit:
    """A paragraph, or a sentence of a very long one. border: what it is parted from the unit before by, and how."""

    text: str
    border: int
    joint: str


@dataclass(frozen=True)
class Passage:
    """Consecutive units; num_tokens by the tokenizer that cut it."""

    text: str
    num_tokens: int


def units_of(text: str) -> list[Unit]:
    """The paragraphs of a plain or Markdown text; headings and scene marks become the joints between them."""
    units: list[Unit] = []
    border, marks = CHAPTER_BREAK, ""
    for paragraph in paragraphs(FRONT_MATTER.sub("", text)):
        if (found := _border(paragraph, after_heading=border == CHAPTER_BREAK and bool(marks))) != PARAGRAPH:
            border, marks = max(border, found), f"{marks}\n\n{paragraph}"
            continue
        units.append(Unit(paragraph, border, f"{marks}\n\n" if units else ""))
        border, marks = PARAGRAPH, ""
    return units


def _border(paragraph: str, after_heading: bool) -> int:
    """CHAPTER_BREAK or SCENE where the paragraph is no prose but a heading or a mark; else PARAGRAPH."""
    if MARKDOWN_HEADING.fullmatch(paragraph):
        return CHAPTER_BREAK
    if SCENE_MARK.fullmatch(paragraph):
        return SCENE
    short = len(paragraph) <= HEADING_CHARS
    if short and (PART.fullmatch(paragraph) or CHAPTER.fullmatch(paragraph) or (after_heading and paragraph.isupper())):
        return CHAPTER_BREAK
    return PARAGRAPH


def cut(units: Sequence[Unit], token_starts: TokenStarts, size: PassageSize) -> list[Passage]:
    """All units in order, as passages. One that is too short or too long (a sentence beyond max_tokens) is among them:
    the caller says what becomes of it."""
    units = _without_long(units, token_starts, size)
    if not units:
        return []
    text, begins, ends = _joined(units)
    (starts,) = token_starts([text])
    tokens_at = [bisect_left(starts, offset) for offset in (*begins, len(text))]
    borders = _best_borders([unit.border for unit in units], tokens_at, size)
    texts = [text[begins[first] : ends[after - 1]] for first, after in pairwise(borders)]
    return [Passage(one, len(places)) for one, places in zip(texts, token_starts(texts), strict=True)]


def _without_long(units: Sequence[Unit], token_starts: TokenStarts, size: PassageSize) -> list[Unit]:
    """Paragraphs of more than max_tokens become their sentences."""
    lengths = [len(starts) for starts in token_starts([unit.text for unit in units])] if units else []
    return [
        part for unit, length in zip(units, lengths, strict=True) for part in _parts(unit, length > size.max_tokens)
    ]


def _parts(unit: Unit, is_long: bool) -> Iterator[Unit]:
    if not is_long:
        yield unit
        return
    ends = sentence_ends(unit.text)
    for number, (begin, end) in enumerate(pairwise([0, *ends])):
        sentence = unit.text[begin:end]
        gap = sentence[: len(sentence) - len(sentence.lstrip())]
        yield Unit(sentence.strip(), SENTENCE if number else unit.border, gap if number else unit.joint)


def _joined(units: Sequence[Unit]) -> tuple[str, list[int], list[int]]:
    """The whole text, and where each unit begins and ends in it."""
    pieces, begins, ends, length = [], [], [], 0
    for unit in units:
        pieces += [unit.joint, unit.text]
        begins.append(length + len(unit.joint))
        length = begins[-1] + len(unit.text)
        ends.append(length)
    return "".join(pieces), begins, ends


def _best_borders(borders: Sequence[int], tokens_at: Sequence[int], size: PassageSize) -> list[int]:
    """Numbers of the units that begin a passage, and the number of units at the end: the cheapest way to cut.

    tokens_at: how many tokens stand before each unit, and in all.
    """
    best, came_from = [0.0], [0]
    for after in range(1, len(borders) + 1):
        found, over = [], 0.0
        for first in range(after - 1, -1, -1):
            length = tokens_at[after] - tokens_at[first]
            if length > size.max_tokens and first < after - 1:
                break
            found.append((best[first] + CUT_COST[borders[first]] + over + _size_cost(length, size), first))
            over += OVER_COST[borders[first]]
        cost, first = min(found)
        best.append(cost)
        came_from.append(first)
    places = [len(borders)]
    while places[-1]:
        places.append(came_from[places[-1]])
    return places[::-1]


def _size_cost(length: int, size: PassageSize) -> float:
    if length < size.min_tokens:
        return LOST_COST * (1 + length / size.min_tokens)  # the less is lost, the better
    middle = (size.min_tokens + size.max_tokens) / 2
    return SIZE_COST * min(1.0, (2 * (length - middle) / max(1, size.max_tokens - size.min_tokens)) ** 2)
