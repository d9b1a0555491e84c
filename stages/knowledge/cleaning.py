"""Text made plain: Unicode and white space normalised, section markers and empty sections taken out.

    markers = Markers(["EXPLANATION", "INTERVENTION"], stubs=["Not required."])
    markers.strip("[Explanation] Lona Tir  built it. [INTERVENTION] not required")   # "Lona Tir built it."

A section runs from its marker to the next marker or the end. One that says only a stub goes with its marker.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, byte order mark
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # half a surrogate pair is no character
LINE_END = re.compile(r"\r\n?|[\u0085\u2028\u2029]")
BLANK = re.compile(r"[^\S\n]+")
PARAGRAPH_GAP = re.compile(r"\n{3,}")
SENTENCE_END = " \t\n.!…。-–—*_"


def normalise(text: str) -> str:
    """NFC, \\n line ends, one space between words, at most one empty line, no invisible characters; idempotent.

    Letters, punctuation and emoji sequences (zero-width joiners) stay as they are; mojibake is repaired, first of
    all, since non-breaking spaces can be part of it.
    """
    text = _plain(repair(text))
    while (repaired := _plain(repair(text))) != text:
        text = repaired
    return text


def _plain(text: str) -> str:
    text = CONTROL.sub(" ", INVISIBLE.sub("", LINE_END.sub("\n", text)))
    lines = (BLANK.sub(" ", line).strip() for line in unicodedata.normalize("NFC", text).split("\n"))
    return PARAGRAPH_GAP.sub("\n\n", "\n".join(lines)).strip()


def repair(text: str) -> str:
    """Undoes mojibake (UTF-8 once read as another code page) where it is certain; other text is returned as it is."""
    if text.isascii():
        return text
    import ftfy
    import ftfy.badness

    return ftfy.fix_encoding(text) if ftfy.badness.is_bad(text) else text


class Markers:
    """Section markers such as [EXPLANATION], in any case, closing forms, doubled or unclosed brackets included.

    names: the words inside the brackets, for the language of the text. known: the names of all languages, which
    must not be left over either.
    """

    def __init__(self, names: Sequence[str], stubs: Iterable[str] = (), known: Iterable[str] = ()) -> None:
        self._marker = _marker_pattern(names)
        self._leftover = _leftover_pattern({*names, *known})
        self._stubs = {_bare(stub) for stub in stubs}

    def strip(self, text: str) -> str:
        """Normalised text without markers and without sections that are stubs.

        Repeated until nothing changes, since taking one marker out can complete another around it.
        """
        text = normalise(text)
        while (stripped := normalise(self._strip_once(text))) != text:
            text = stripped
        return text

    def leftover(self, text: str) -> str:
        """The first thing in stripped text that still looks like a marker; "" where there is none."""
        found = self._leftover.search(text)
        return found[0] if found else ""

    def _strip_once(self, text: str) -> str:
        kept = []
        start, section_opened = 0, False
        for marker in [*self._marker.finditer(text), None]:
            piece = text[start : marker.start() if marker else len(text)]
            if not (section_opened and _bare(piece) in self._stubs):
                kept.append(piece)
            if marker:
                start, section_opened = marker.end(), not marker["closing"]
        return " ".join(kept)


def _marker_pattern(names: Sequence[str]) -> re.Pattern[str]:
    # A bracket that is never closed ends the marker after its name; `[explanation of terms]` is none.
    closed = r"\\?\]+(?(emphasis)(?P=emphasis))(?:[^\S\n]*:)?"
    end = rf"\s*(?::\s*)?(?:{closed}|(?![^\[\]\n]*\]))"
    start = r"(?P<emphasis>[*_]{1,3})?\\?\[+\s*(?P<closing>[/\\]?)\s*"
    return re.compile(rf"{start}{_any_of(names)}\b{end}", re.IGNORECASE)


def _leftover_pattern(names: set[str]) -> re.Pattern[str]:
    # Looser than what is stripped, so that a form nobody thought of is noticed: other brackets, one bracket, a number
    name = _any_of(names)
    return re.compile(rf"\[\s*[/\\]?\s*(?i:{name})\s*[\]:\d]|[\[(<{{【«]\s*[/\\]?\s*{name}\b|\b{name}\s*[\])>}}】]")


def _any_of(names: Iterable[str]) -> str:
    spelled = (r"\s+".join(map(re.escape, normalise(name).split())) for name in names)
    choice = "|".join(sorted(spelled, key=lambda name: (-len(name), name)))
    return f"(?:{choice})" if choice else r"(?!)"


def _bare(text: str) -> str:
    return normalise(text).casefold().strip(SENTENCE_END)
