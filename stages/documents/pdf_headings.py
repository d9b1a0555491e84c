"""Headings of a PDF: its outline where it has one, else the lines that are set larger than the text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Headings = dict[int, list[tuple[int, str]]]  # page number -> (level, title), in order

LARGER = 1.15  # than the text
MAX_CHARS = 120
MIN_LETTERS = 3
MAX_SHARE = 0.2  # of all characters; where more are large, size says something else, as on slides
MAX_LEVELS = 4


def outline_headings(document: Any) -> Headings:
    """The bookmarks that lead to a page."""
    found: Headings = defaultdict(list)
    try:
        for bookmark in document.get_toc(max_depth=6):
            destination = bookmark.get_dest()
            index = destination.get_index() if destination else None
            if index is not None and (title := " ".join(bookmark.get_title().split())):
                found[index + 1].append((bookmark.level + 1, title))
    except Exception:  # a broken outline costs the headings, never the text: whatever pdfium's binding raises here
        return found
    return found


def line_heights(textpage: Any, text: str) -> list[float]:
    """How high the type of each line that is not blank is, in points: a letter at its beginning, middle and end say."""
    heights = []
    begin = 0
    for line in text.splitlines(keepends=True):
        if stripped := line.strip():
            first = begin + line.index(stripped[0])
            places = sorted(_height(textpage, first + len(stripped) * n // 2 - (n == 2)) for n in range(3))
            heights.append(round(places[1], 1))
        begin += len(line)
    return heights


def _height(textpage: Any, index: int) -> float:
    """Of a character's line box, which takes a scaled font into account; 0 where pdfium does not know."""
    from pypdfium2 import PdfiumError

    try:
        _, bottom, _, top = textpage.get_charbox(index, loose=True)
    except (PdfiumError, ValueError, IndexError):
        return 0.0
    return float(top - bottom)


def large_lines(
    pages: Mapping[int, Sequence[str]], heights: Mapping[int, Sequence[float]], left_out: Collection[str]
) -> Headings:
    """Lines of words in larger type than most of the text, the largest outermost; `left_out` are none."""
    lines = [
        (page, line, height)
        for page in pages
        for line, height in zip(pages[page], heights[page], strict=False)
        if line not in left_out
    ]
    chars: Counter[float] = Counter()
    for _, line, height in lines:
        chars[height] += len(line)
    usual = max(chars, key=lambda height: (chars[height], height), default=0.0)
    large = [
        (page, line, height) for page, line, height in lines if height >= LARGER * usual > 0 and _may_be_heading(line)
    ]
    if sum(len(line) for _, line, _ in large) > MAX_SHARE * chars.total():
        return {}
    ranks = sorted({height for _, _, height in large}, reverse=True)
    found: Headings = defaultdict(list)
    for page, line, height in large:
        found[page].append((min(ranks.index(height) + 1, MAX_LEVELS), line))
    return found


def _may_be_heading(line: str) -> bool:
    return len(line) <= MAX_CHARS and sum(map(str.isalpha, line)) >= MIN_LETTERS and line[0] not in ",.;:)*-–—"
