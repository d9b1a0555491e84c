"""Documents cut into chunks of at most so many tokens: at headings, then paragraphs, sentences and words.

    cut(text, blocks, ChunkSize(chunk_tokens=500, overlap_tokens=50), token_starts)

A chunk is `text[begin:end]`; the next one begins with the last sentences of the one before it, where they are short
enough. Each chunk lies in one section, but for tiny sections (of less than a fifth of a chunk), which are joined with
the next one that is not above them. A table stays whole where it fits into a chunk; a longer one is cut between rows,
and its first row is repeated before the rows that follow.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from stages.knowledge.sentences import sentence_ends, sentences
from stages.knowledge.token_places import TokenPlaces, TokenStarts

__all__ = ["Block", "ChunkSize", "Piece", "TokenStarts", "cut", "sentence_ends", "sentences"]

TINY = 5  # a section of less than 1 / TINY of a chunk is joined with its neighbour
WORD_GAP = re.compile(r"\s(?=\S)")


class Block(Protocol):
    """A heading, a paragraph or a table; `stages.documents.blocks.Block` is one.

    Blocks stand in the order of the text, white space between them; path: the headings above, a heading's own last.
    """

    @property
    def kind(self) -> str: ...
    @property
    def path(self) -> tuple[str, ...]: ...
    @property
    def page(self) -> int | None: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True)
class ChunkSize:
    """overlap_tokens: at most so many tokens of a chunk are said again at the beginning of the next."""

    chunk_tokens: int
    overlap_tokens: int

    def __post_init__(self) -> None:
        if self.chunk_tokens < 8:
            raise ValueError("chunk_tokens must be at least 8")
        if not 0 <= self.overlap_tokens <= self.chunk_tokens // 2:
            raise ValueError("overlap_tokens must be at least 0 and at most half of chunk_tokens")


@dataclass(frozen=True)
class Piece:
    """A chunk's text is its table's first row, where that is repeated, and the document's text from begin to end.

    page: on which it begins. num_tokens: 0 where nobody had to count, as the document has fewer bytes than that.
    """

    text: str
    path: tuple[str, ...]
    page: int | None
    begin: int
    end: int
    num_tokens: int = 0


def cut(text: str, blocks: Sequence[Block], size: ChunkSize, token_starts: TokenStarts) -> list[Piece]:
    """The chunks in order; together they hold all of the text but the white space between them.

    A document of fewer bytes than chunk_tokens is one chunk, and `token_starts` is not asked: no tokenizer makes more
    tokens than bytes.
    """
    if not blocks:
        return []
    if len(text.encode("utf-8", "replace")) < size.chunk_tokens:
        whole = text[blocks[0].begin : blocks[-1].end]
        return [Piece(whole, _common_path(blocks), blocks[0].page, blocks[0].begin, blocks[-1].end)]
    cutter = _Cutter(text, blocks, size, token_starts)
    return [piece for first, last in cutter.groups() for piece in cutter.pieces(first, last)]


class _Cutter:
    """One document. Positions are offsets into its text, blocks are known by their place."""

    def __init__(self, text: str, blocks: Sequence[Block], size: ChunkSize, token_starts: TokenStarts) -> None:
        self._text = text
        self._blocks = blocks
        self._size = size
        self._tokens = TokenPlaces(text, [(block.begin, block.end) for block in blocks], token_starts)
        self._begins = [block.begin for block in blocks]
        self._ends: tuple[int, list[int]] = (-1, [])  # of the sentences of the block that was last asked for

    def groups(self) -> Iterator[tuple[int, int]]:
        """First and last block of what is cut on its own: a section, with the tiny ones before it."""
        first = 0
        for start in range(1, len(self._blocks)):
            before, block = self._blocks[start - 1 : start + 1]
            if block.kind != "heading" or before.kind == "heading":  # a heading alone belongs to what follows it
                continue
            is_tiny = self._tokens.count(self._begins[first], block.begin) * TINY < self._size.chunk_tokens
            if not is_tiny or len(block.path) < len(self._blocks[first].path):
                yield first, start - 1
                first = start
        yield first, len(self._blocks) - 1

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """The chunks of some blocks. What is before `fresh` has been said; `begin` is before it by the overlap."""
        end = self._blocks[last].end
        begin = fresh = self._begins[first]
        while fresh < end:
            begin, stop, header, num_tokens = self._longest(begin, fresh, end)
            blocks = self._blocks[self._block_at(fresh) : self._block_at(stop - 1) + 1]
            text = header + self._text[begin:stop]
            yield Piece(text, _common_path(blocks), self._page(begin), begin, stop, num_tokens)
            fresh = self._next_word(stop, end)
            begin = self._overlap(begin, stop, fresh) if fresh < end else fresh

    def _longest(self, begin: int, fresh: int, end: int) -> tuple[int, int, str, int]:
        """(begin, stop, repeated header, number of tokens) of the next chunk; what leaves no room is given up."""
        header = self._header(begin)
        for start, repeated in ((begin, header), (fresh, self._header(fresh)), (fresh, "")):
            budget = self._size.chunk_tokens - self._tokens.exact(repeated)
            while budget > 0 and (stop := self._stop(start, fresh, end, budget)) > fresh:
                num_tokens = self._tokens.exact(repeated + self._text[start:stop])
                if num_tokens <= self._size.chunk_tokens:
                    return start, stop, repeated, num_tokens
                budget -= num_tokens - self._size.chunk_tokens  # tokens are others where a text begins or ends
        return fresh, fresh + 1, "", self._tokens.exact(self._text[fresh])

    def _stop(self, begin: int, fresh: int, end: int, budget: int) -> int:
        """Where a chunk from `begin` on had best end, if it may have `budget` tokens; `fresh` or less: nowhere."""
        reach = self._tokens.reach(begin, budget, end)
        if reach >= end:
            return end
        place = self._block_at(reach)
        block = self._blocks[place]
        paragraph = self._paragraph_end(place, fresh, reach)
        if block.kind == "table" and self._fits(block) and reach < block.end:
            if begin < fresh == block.begin:
                return fresh  # the table fits without the overlap
            if fresh < block.begin:
                return paragraph or self._blocks[place - 1].end
        if paragraph and 2 * self._tokens.count(begin, paragraph) >= budget:
            return paragraph
        inner = self._inner_end(place, fresh, reach)
        return inner or paragraph or self._word_end(fresh, reach)

    def _paragraph_end(self, place: int, fresh: int, reach: int) -> int:
        """The last end of a block up to `reach` after which no heading is left alone; 0 where there is none."""
        backwards = (self._blocks[n] for n in range(place, -1, -1))
        before = takewhile(lambda block: block.end > fresh, backwards)
        return next((block.end for block in before if block.end <= reach and block.kind != "heading"), 0)

    def _inner_end(self, place: int, fresh: int, reach: int) -> int:
        """The last end of a row or a sentence in the block up to `reach`; 0 where there is none."""
        block = self._blocks[place]
        if block.kind == "table":
            after_header = self._text.find("\n", block.begin, block.end) + 1
            return max(0, self._text.rfind("\n", max(fresh, after_header), min(reach, block.end) + 1))
        ends = self._sentence_ends(place)
        found = bisect_right(ends, reach)
        return ends[found - 1] if found and ends[found - 1] > fresh else 0

    def _word_end(self, fresh: int, reach: int) -> int:
        space = max(self._text.rfind(" ", fresh, reach + 1), self._text.rfind("\n", fresh, reach + 1))
        stop = space if space > fresh else reach
        while stop > fresh and self._text[stop - 1].isspace():
            stop -= 1
        return stop

    def _overlap(self, begin: int, stop: int, fresh: int) -> int:
        """Where the next chunk begins: at the earliest sentence, else the earliest word, that the overlap has room for.

        Rows of a table are not said again, and never a whole chunk.
        """
        if not self._size.overlap_tokens or self._blocks[self._block_at(stop - 1)].kind == "table":
            return fresh
        low = max(self._tokens.reach_back(stop, self._size.overlap_tokens), begin + 1)
        if starts := self._sentence_starts(low, stop):
            return starts[0]
        space = WORD_GAP.search(self._text, low - 1, stop)
        return space.end() if space else fresh

    def _sentence_starts(self, low: int, stop: int) -> list[int]:
        """In order, from the last table on."""
        starts: list[int] = []
        for place in range(self._block_at(low), self._block_at(stop - 1) + 1):
            block = self._blocks[place]
            if block.kind == "table":
                starts.clear()
                continue
            ends = self._sentence_ends(place)
            nearby = ends[bisect_left(ends, low - 2) : bisect_left(ends, stop)]
            starts += [block.begin, *(self._next_word(end, block.end) for end in nearby if end < block.end)]
        return [start for start in starts if low <= start < stop]

    def _sentence_ends(self, place: int) -> list[int]:
        if self._ends[0] != place:
            block = self._blocks[place]
            self._ends = place, [block.begin + end for end in sentence_ends(self._text[block.begin : block.end])]
        return self._ends[1]

    def _header(self, begin: int) -> str:
        """The first row of the table in which `begin` lies, if that is not its own and takes at most half a chunk."""
        block = self._blocks[self._block_at(begin)]
        if block.kind != "table" or begin == block.begin:
            return ""
        header = self._text[block.begin : self._text.find("\n", block.begin, block.end) + 1]
        return header if 2 * self._tokens.exact(header) <= self._size.chunk_tokens else ""

    def _fits(self, block: Block) -> bool:
        return self._tokens.count(block.begin, block.end) <= self._size.chunk_tokens

    def _block_at(self, position: int) -> int:
        return max(0, bisect_right(self._begins, position) - 1)

    def _page(self, position: int) -> int | None:
        return self._blocks[self._block_at(position)].page

    def _next_word(self, position: int, end: int) -> int:
        while position < end and self._text[position].isspace():
            position += 1
        return position


def _common_path(blocks: Sequence[Block]) -> tuple[str, ...]:
    """The headings above all text in the blocks; text that stands above other has no say: `Bako`, `Bako > History`."""
    paths = {block.path for block in blocks if block.kind != "heading"} or {blocks[-1].path}
    leaves = sorted(p for p in paths if not any(other[: len(p)] == p and other != p for other in paths))
    common = takewhile(lambda pair: pair[0] == pair[1], zip(leaves[0], leaves[-1], strict=False))
    return tuple(name for name, _ in common)
