"""Does an answer come from its chunk? By its content words, numbers and names, without a model.

    support("Bako was founded by Lona Tir in 1200.", "The mill Bako. Its founder was Lona Tir.", "en")
    # share 1.0 (founded ~ founder), missing numbers [1200], missing names []

What it cannot see: an answer made of the chunk's words that says something else with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stages.knowledge.shingles import words
from stages.synthetic.languages import LANGUAGES, script_of

WORD = re.compile(r"\w+(?:[-'’]\w+)*")
NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f ]\d{3}(?!\d))*(?:[.,]\d+)?")
LIST_NUMBER = re.compile(r"^[^\S\n]*\d+[.)](?=\s)", re.MULTILINE)
SENTENCE_MARKS = '.!?…:;"«“„([*–—-'
POSSESSIVE = re.compile(r"['’]s?$")
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA")  # scripts without spaces: pairs of characters stand for words
MAX_ENDING = 3  # letters in which two forms of one word may differ,
MIN_SHARED = 0.65  # or the share of the longer one that they have in common


@dataclass(frozen=True)
class Support:
    """share: of the content words that the source has, 1 where there are none. Numbers and names that it has not."""

    share: float
    missing_words: list[str]
    missing_numbers: list[str]
    missing_names: list[str]


def support(text: str, source: str, language: str) -> Support:
    """How much of `text` stands in `source`, both in the language `language`."""
    known = _Vocabulary(source, language)
    content = content_words(text, language)
    missing = [word for word in content if not known.has_form_of(word)]
    numbers = _numbers(source)
    names = [] if LANGUAGES[language].capitalises_nouns else names_in(text, language)
    return Support(
        1 - len(missing) / len(content) if content else 1.0,
        missing,
        sorted(_numbers(LIST_NUMBER.sub("", text)) - numbers),
        [name for name in names if not known.has_name(name)],
    )


def content_words(text: str, language: str) -> list[str]:
    """Distinct words that carry meaning, in their order: no stop words, no numbers, nothing of one letter."""
    stop_words = LANGUAGES[language].stop_words
    found = (piece for word in words(text) for piece in _pieces(word))
    return list(dict.fromkeys(w for w in found if w not in stop_words and len(w) > 1 and not w.isdigit()))


def names_in(text: str, language: str) -> list[str]:
    """Capitalised words inside a sentence, and at its start where another one follows (`Lona Tir built it`)."""
    stop_words = LANGUAGES[language].stop_words
    found: dict[str, None] = {}
    matches = list(WORD.finditer(text))
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        name = POSSESSIVE.sub("", match[0])
        if not name[:1].isupper() or len(name) < 2 or name.casefold() in stop_words:
            continue
        adjacent = following is not None and text[match.end() : following.start()] == " " and following[0][0].isupper()
        if adjacent or not _starts_sentence(text, match.start()):
            found[name] = None
    return list(found)


def _starts_sentence(text: str, place: int) -> bool:
    before = text[:place].rstrip()
    return not before or before[-1] in SENTENCE_MARKS or "\n" in text[len(before) : place]


class _Vocabulary:
    """The words of a text, looked up with other endings."""

    def __init__(self, text: str, language: str) -> None:
        inflects = LANGUAGES[language].inflects_names
        self._words = {piece for word in words(text) for piece in _pieces(word)}
        self._least = 3 if inflects else 4  # letters that two forms of a word share
        self._names_inflect = inflects
        self._by_start: dict[str, list[str]] = {}
        for word in self._words:
            self._by_start.setdefault(word[: self._least], []).append(word)

    def has_form_of(self, word: str) -> bool:
        candidates = self._by_start.get(word[: self._least], ())
        return word in self._words or any(_forms_of_one_word(word, other, self._least) for other in candidates)

    def has_name(self, name: str) -> bool:
        parts = words(name)
        return all(self.has_form_of(part) if self._names_inflect else part in self._words for part in parts)


def _forms_of_one_word(one: str, other: str, least: int) -> bool:
    shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    longest = max(len(one), len(other))
    return shared >= max(least, min(longest - MAX_ENDING, int(MIN_SHARED * longest)))


def _pieces(word: str) -> Iterable[str]:
    if len(word) < 2 or script_of(word[0]) not in UNSPACED:
        return (word,)
    return (word[start : start + 2] for start in range(len(word) - 1))


def _numbers(text: str) -> set[str]:
    """Numbers in one spelling: no separators of thousands, a full stop before decimals, no zeros at their end."""
    found = set()
    for number in NUMBER.findall(text):
        plain = re.sub(r"[.,\u00a0\u202f ](?=\d{3}(?!\d))", "", number).replace(",", ".")
        whole, _, decimals = plain.partition(".")
        decimals = decimals.rstrip("0")
        found.add(f"{whole.lstrip('0') or '0'}.{decimals}" if decimals else whole.lstrip("0") or "0")
    return found
