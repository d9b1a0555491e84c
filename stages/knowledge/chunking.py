"""Connected text cut into chunks: at paragraphs first, then at sentence ends, then between words.

cut("One. Two three. Four.", max_words=3)   # ["One. Two three.", "Four."]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stages.knowledge.cleaning import normalise

WRAPPED_CHARS = 100  # a text none of whose lines is longer was wrapped by hand or by a mail program
HEADING_CHARS = 60
NUMBER = (
    r"(?:[IVXLC]+|\d+|(?:the\s+)?(?:one|two|three|four|five|six|seven|first|second|third|fourth|fifth|last)"
    r"|перв\w+|втор\w+|трет\w+|четв\w+|пят\w+|шест\w+|последн\w+)"
)
PART = re.compile(rf"(?:part|book|volume|часть|книга|том)\s+{NUMBER}\b\W*", re.IGNORECASE)
CHAPTER = re.compile(rf"(?:chapter|глава)\s+{NUMBER}\b.*|[IVXLC]+\.?|\d{{1,3}}\.?", re.IGNORECASE)
# After two letters or a non-letter and a full stop, before anything but a small letter: `J. Verne` stays whole
SENTENCE_GAP = re.compile(
    r"(?:(?<=[^\W\d][^\W\d][.!?…])|(?<=[\d\W][.!?…。！？]))[\"'»”’)\]]*(?P<gap>\s+)(?=[^\sa-zа-яё])"
)


@dataclass(frozen=True)
class Section:
    """A chapter of plain text: its heading ("" before the first) and its paragraphs."""

    heading: str
    paragraphs: list[str]


def sentence_ends(text: str) -> list[int]:
    """Where each sentence ends, its closing quotes included; the last is the text's end."""
    text = text.rstrip()
    return [*(match.start("gap") for match in SENTENCE_GAP.finditer(text)), len(text)] if text else []


def sentences(text: str) -> list[str]:
    """Sentences without the white space between them. An initial such as `J. Verne` ends none."""
    ends = sentence_ends(text)
    return [text[begin:end].strip() for begin, end in pairwise([0, *ends])]


def paragraphs(text: str) -> list[str]:
    """Paragraphs of plain text, each on one line.

    Where lines were wrapped, an empty or an indented line ends a paragraph; else every line is one.
    """
    lines = text.expandtabs().splitlines()
    wrapped = all(len(line) <= WRAPPED_CHARS for line in lines)
    blocks: list[list[str]] = [[]]
    for line in lines:
        indented = line[:2].isspace()
        if not line.strip() or not wrapped or indented:
            blocks.append([])
        if line.strip():
            blocks[-1].append(line.strip())
    return [joined for block in blocks if (joined := normalise(" ".join(block)))]


def sections(text: str) -> list[Section]:
    """Plain text cut at headings (Chapter 1, Глава 2, IV); a part's heading goes before those of its chapters."""
    found = [Section("", [])]
    part = ""
    for paragraph in paragraphs(text):
        if len(paragraph) <= HEADING_CHARS and PART.fullmatch(paragraph):
            part = paragraph
            found.append(Section(part, []))
        elif len(paragraph) <= HEADING_CHARS and CHAPTER.fullmatch(paragraph):
            found.append(Section(f"{part} {paragraph}".strip(), []))
        else:
            found[-1].paragraphs.append(paragraph)
    return [section for section in found if section.paragraphs]


def cut(text: str, max_words: int) -> list[str]:
    """Chunks of at most `max_words` words, in order; together they hold every word of the text."""
    return cut_paragraphs(paragraphs(text), max_words)


def cut_paragraphs(texts: Sequence[str], max_words: int) -> list[str]:
    """As `cut`, for paragraphs; those in one chunk stay apart by an empty line."""
    pieces = [("\n\n", paragraph) for paragraph in texts]
    return _pack([small for piece in pieces for small in _fitting(piece, max_words)], max_words)


def _fitting(piece: tuple[str, str], max_words: int) -> Iterator[tuple[str, str]]:
    """The paragraph itself, or its sentences, or runs of words; each with what separates it from the one before."""
    separator, text = piece
    if len(text.split()) <= max_words:
        yield piece
        return
    for sentence in sentences(text):
        words = sentence.split()
        for at in range(0, len(words), max_words):
            yield separator, " ".join(words[at : at + max_words])
            separator = " "


def _pack(pieces: Sequence[tuple[str, str]], max_words: int) -> list[str]:
    chunks: list[str] = []
    room = 0
    for separator, text in pieces:
        num_words = len(text.split())
        if chunks and num_words <= room:
            chunks[-1] += separator + text
            room -= num_words
        else:
            chunks.append(text)
            room = max_words - num_words
    return chunks
