"""What every reader returns: a document as blocks in reading order, each with its heading path, page and offsets.

    Block(kind="paragraph", text="Bako was founded in Tarn.", path=("Bako", "History"), page=3, begin=14, end=39)

The document's text is its blocks joined by an empty line; begin and end are offsets (in characters) into that text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

SEPARATOR = "\n\n"
CELL_SEPARATOR = " | "
KINDS = ("heading", "paragraph", "table")
MAX_HEADING_CHARS = 300  # a longer "heading" is a paragraph that somebody made bold
SPACES = re.compile(r"[^\S\n]+")
# What no text needs and SQLite, JSON or a terminal may choke on; soft hyphens and zero-width spaces split words
UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff\ufffe\uffff]")

REASONS = {
    "broken": "the file is damaged or is not what its name says",
    "crashed": "the file made its reader crash",
    "empty": "there is no text in it",
    "hidden": "its name begins with a dot",
    "link": "a link that leads nowhere, in a circle or to a folder; links to folders are not followed",
    "memory_limit": "reading it needs more memory than a document may use",
    "needs_password": "it is protected by a password or by DRM; save it without",
    "no_text_layer": "a scan without a text layer; run it through OCR, as with `ocrmypdf in.pdf out.pdf`",
    "not_a_file": "neither a file nor a folder (a pipe, a socket or a device)",
    "time_limit": "reading it takes longer than a document may take",
    "too_large": "it is larger than a document may be",
    "unreadable": "the file cannot be opened",
    "unsafe": "an archive made to attack its reader (paths that leave it, or a zip bomb)",
    "unsupported": "not one of the formats that are read",
}


class RejectedError(Exception):
    """This document cannot be read. `reason` is one of REASONS."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{REASONS[reason]}: {detail}" if detail else REASONS[reason])
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph or a table (one row a line, cells apart by ` | `, the header first).

    path: the headings above, outermost first; a heading's own text is its last. page: counted from 1, None where the
    format has none.
    """

    kind: str
    text: str
    path: tuple[str, ...]
    page: int | None
    begin: int
    end: int


@dataclass
class Document:
    """What a reader found. Pages are a PDF's pages, a presentation's slides, an EPUB's parts; else num_pages is 0."""

    format: str
    title: str = ""
    blocks: list[Block] = field(default_factory=list)
    num_pages: int = 0
    failed_pages: list[int] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text into which the blocks' offsets lead."""
        return SEPARATOR.join(block.text for block in self.blocks)


def tidy(text: str) -> str:
    """NFC, no control characters, single spaces, no empty lines and no white space around a line."""
    text = UNWANTED.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")))
    lines = (SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


class BlockWriter:
    """Collects blocks in reading order and keeps the heading path.

    Raises RejectedError("too_large") as soon as the text is longer than max_chars.
    """

    def __init__(self, max_chars: int) -> None:
        self.blocks: list[Block] = []
        self._max_chars = max_chars
        self._headings: list[tuple[int, str]] = []
        self._end = -len(SEPARATOR)

    def heading(self, level: int, text: str, page: int | None = None) -> None:
        """level: 1 is the outermost; headings of the same and of deeper levels end here."""
        text = " ".join(text.split())
        if len(text) > MAX_HEADING_CHARS:
            self.paragraph(text, page)
        elif text := tidy(text):
            self._headings = [(above, name) for above, name in self._headings if above < level]
            self._headings.append((level, text))
            self._add("heading", text, page)

    def paragraph(self, text: str, page: int | None = None) -> None:
        if text := tidy(text):
            self._add("paragraph", text, page)

    def table(self, rows: Sequence[Sequence[str]], page: int | None = None) -> None:
        """Rows of cells; empty rows are left out. One row or one column is a paragraph: no table to keep whole."""
        cleaned = [[" ".join(tidy(cell).split()) for cell in row] for row in rows]
        cleaned = [row for row in cleaned if any(row)]
        if len(cleaned) < 2 or max(map(len, cleaned)) < 2:
            for row in cleaned:
                self.paragraph(" ".join(filter(None, row)), page)
            return
        self._add("table", "\n".join(CELL_SEPARATOR.join(row).strip() for row in cleaned), page)

    def _add(self, kind: str, text: str, page: int | None) -> None:
        begin = self._end + len(SEPARATOR)
        self._end = begin + len(text)
        if self._end > self._max_chars:
            raise RejectedError("too_large", f"more than {self._max_chars:,} characters of text")
        path = tuple(name for _, name in self._headings)
        self.blocks.append(Block(kind, text, path, page, begin, self._end))
