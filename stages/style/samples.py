"""The files of a folder of writing samples, read strictly, and their passages.

SamplePassage("verne-a1b2c3d4-0017", "chapters/reef.md", 17, "The year 1866 was ...", 912)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stages.core.errors import DataError
from stages.core.ledger import Ledger
from stages.core.record_files import read_text
from stages.documents.folder import Found, files_of
from stages.knowledge.shingles import Shingler, similar_pairs
from stages.style.notes import Notes
from stages.style.passages import PassageSize, TokenStarts, cut, units_of

SUFFIXES = (".txt", ".md")
NOT_MEANT = ("hidden", "unsupported")  # what lies among samples without being one


@dataclass(frozen=True)
class SamplePassage:
    """source: its file in the folder. number: its place in that file, counted from 1, rejected ones included."""

    source: str
    number: int
    text: str
    num_tokens: int

    @property
    def origin(self) -> str:
        return f"{self.source}: passage {self.number}"


def read_samples(folder: Path, notes: Notes, ledger: Ledger) -> tuple[dict[str, str], Counter[str]]:
    """File -> its text without notes, and how many notes of each kind there were. Files go to the ledger.

    Reasons: unsupported (neither .txt nor .md), hidden, link, unreadable, not_a_file, binary, not_utf8, empty,
    same_file. Raises DataError where the folder is missing or empty.
    """
    texts: dict[str, str] = {}
    removed: Counter[str] = Counter()
    firsts: dict[str, str] = {}
    for found in files_of(folder):
        ledger.read()
        reason, detail, text = _read(found)
        if not reason:
            text, counts = notes.removed(text)
            removed += counts
            reason, detail = ("", "") if units_of(text) else ("empty", "nothing but headings and notes")
        if not reason and (first := firsts.setdefault(text, found.source)) != found.source:
            reason, detail = "same_file", f"the same text as {first}"
        if reason:
            ledger.reject(found.source, reason, detail)
        else:
            texts[found.source] = text
    return texts, removed


def _read(found: Found) -> tuple[str, str, str]:
    """(reason, detail, text)."""
    if found.reason:
        return found.reason, "", ""
    if PurePosixPath(found.source).suffix.lower() not in SUFFIXES:
        return "unsupported", f"only {' and '.join(SUFFIXES)} are read", ""
    try:
        text = read_text(found.path)
    except DataError as error:
        with open(found.path, "rb") as file:
            is_binary = b"\0" in file.read(1 << 16)
        return ("binary", "no text file", "") if is_binary else ("not_utf8", str(error), "")
    except OSError as error:
        return "unreadable", str(error.strerror), ""
    if "\0" in text:
        return "binary", "no text file: it holds NUL bytes", ""
    return ("", "", text.replace("\r\n", "\n").replace("\r", "\n")) if text.strip() else ("empty", "", "")


def cut_samples(
    texts: dict[str, str], token_starts: TokenStarts, size: PassageSize, track: Callable[..., Iterator[str]]
) -> list[SamplePassage]:
    """All passages of all files, those that are too short or too long among them."""
    passages = []
    for source in track(texts, "cut"):
        for number, passage in enumerate(cut(units_of(texts[source]), token_starts, size), start=1):
            passages.append(SamplePassage(source, number, passage.text, passage.num_tokens))
    return passages


def usable(
    passages: Sequence[SamplePassage], size: PassageSize, similarity: float, ledger: Ledger
) -> list[SamplePassage]:
    """Those within the limits that repeat no earlier one. Reasons: too_short, too_long, duplicate."""
    fitting = []
    for passage in passages:
        ledger.read()
        if passage.num_tokens < size.min_tokens:
            ledger.reject(passage.origin, "too_short", f"{passage.num_tokens} tokens")
        elif passage.num_tokens > size.max_tokens:
            ledger.reject(passage.origin, "too_long", f"{passage.num_tokens} tokens, and no sentence ends on the way")
        else:
            fitting.append(passage)
    repeats = _repeats([passage.text for passage in fitting], similarity)
    for number, first in repeats.items():
        ledger.reject(fitting[number].origin, "duplicate", f"of {fitting[first].origin}")
    return [passage for number, passage in enumerate(fitting) if number not in repeats]


def _repeats(texts: Sequence[str], similarity: float) -> dict[int, int]:
    """Text -> an earlier one that is kept and that it repeats."""
    shingler = Shingler()
    repeats: dict[int, int] = {}
    for first, second in sorted(similar_pairs([shingler(text) for text in texts], similarity)):
        if first not in repeats:
            repeats.setdefault(second, first)
    return repeats
