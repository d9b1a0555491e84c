"""Plain text, subtitles and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.charset import decode

WRAPPED_CHARS = 100  # a text none of whose lines is longer was wrapped by hand or by a mail program...
PROSE_CHARS = 55  # ... if its lines are this long at least; shorter ones are verse or a list, and stay apart
DELIMITERS = ",;\t|"
HEADING_CHARS = 60
NUMBER = (
    r"(?:[IVXLC]+|\d+|(?:the\s+)?(?:one|two|three|four|five|six|seven|first|second|third|fourth|fifth|last)"
    r"|перв\w+|втор\w+|трет\w+|четв\w+|пят\w+|шест\w+|последн\w+)"
)
PART = re.compile(rf"(?:part|book|volume|часть|книга|том)\s+{NUMBER}\b\W*", re.IGNORECASE)
CHAPTER = re.compile(rf"(?:chapter|глава)\s+{NUMBER}\b.*|[IVXLC]+\.?|\d{{1,3}}\.?", re.IGNORECASE)
EMPTY_LINES = re.compile(r"\n[^\S\n]*\n")
CUE = re.compile(r"(?:WEBVTT[^\n]*)|(?:[^\n]*\n)?[\d:.,]+ --> [\d:.,]+[^\n]*\n?")


def read_bytes(path: Path, max_chars: int) -> bytes:
    """The file's bytes. Raises RejectedError("too_large") before it reads what cannot be below max_chars."""
    if path.stat().st_size > 4 * max_chars:  # no charset needs more than four bytes a character
        raise RejectedError("too_large", f"{path.stat().st_size:,} bytes of text; at most {4 * max_chars:,} are read")
    return path.read_bytes()


def read_plain(path: Path, max_chars: int) -> Document:
    """Plain text with the headings that books have: Chapter 1, Глава 2, IV, and above them Part one, Часть первая."""
    text, charset = decode(read_bytes(path, max_chars))
    writer = BlockWriter(max_chars)
    for paragraph in paragraphs(text):
        if len(paragraph) <= HEADING_CHARS and PART.fullmatch(paragraph):
            writer.heading(1, paragraph)
        elif len(paragraph) <= HEADING_CHARS and CHAPTER.fullmatch(paragraph):
            writer.heading(2, paragraph)
        else:
            writer.paragraph(paragraph)
    return Document("txt", blocks=writer.blocks, metadata={"charset": charset})


def plain_document(text: str, max_chars: int) -> Document:
    """Text that is no file: its paragraphs, none of which is taken for a heading."""
    writer = BlockWriter(max_chars)
    for paragraph in paragraphs(text):
        writer.paragraph(paragraph)
    return Document("txt", blocks=writer.blocks)


def paragraphs(text: str) -> Iterator[str]:
    """Where lines were wrapped, an empty line ends a paragraph, and in prose an indented one begins the next; else
    every line is one. The lines of verse and lists stay apart."""
    lines = text.expandtabs().splitlines()
    lengths = [len(line) for line in lines if line.strip()]
    wrapped = bool(lengths) and max(lengths) <= WRAPPED_CHARS
    prose = wrapped and median(lengths) >= PROSE_CHARS
    begun: list[str] = []
    for line in [*lines, ""]:
        if begun and (not wrapped or not line.strip() or (prose and line[:2].isspace())):
            yield (" " if prose else "\n").join(begun)
            begun = []
        if line.strip():
            begun.append(line.strip())


def read_subtitles(path: Path, max_chars: int) -> Document:
    """SRT and WebVTT: what is said, one paragraph a cue, without numbers and times."""
    text, charset = decode(read_bytes(path, max_chars))
    writer = BlockWriter(max_chars)
    for cue in EMPTY_LINES.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        writer.paragraph(" ".join(CUE.sub("", cue.strip(), count=1).split()))
    return Document("subtitles", blocks=writer.blocks, metadata={"charset": charset})


def read_csv(path: Path, max_chars: int) -> Document:
    """One table; the delimiter is the one that cuts the header into most columns."""
    text, charset = decode(read_bytes(path, max_chars))
    header = text.lstrip().partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=header.count)
    csv.field_size_limit(max_chars)
    writer = BlockWriter(max_chars)
    try:
        writer.table(list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)))
    except csv.Error as error:
        raise RejectedError("broken", f"CSV: {error}") from error
    return Document("csv", blocks=writer.blocks, metadata={"charset": charset})


def dehyphenated(lines: list[str]) -> str:
    """Lines of one paragraph joined; a word broken at a line's end (U+FFFE or a hyphen before a small letter) is whole.

    Rows of numbers stay on lines of their own.
    """
    joined = lines[0] if lines else ""
    for before, line in pairwise(lines):
        if is_row(before) or is_row(line):
            joined += f"\n{line}"
            continue
        broken = before.endswith(("\ufffe", "\xad")) or (
            before.endswith("-") and before[-2:-1].isalpha() and line[:1].islower()
        )
        joined = joined[:-1] + line if broken else f"{joined} {line}"
    return joined


def is_row(line: str) -> bool:
    """Whether a line of a PDF looks like a table's row: four words or more, half of them numbers."""
    words = line.split()
    return len(words) >= 4 and 2 * sum(word[-1].isdigit() for word in words) >= len(words)
