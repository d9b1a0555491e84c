"""A writer's style, measured: how long the sentences are, how rich the words, how much is dialogue, who narrates.

    profile = StyleProfile.of(passages, language="en")
    profile.value("words_per_sentence")     # 21.7
    profile.features["dialogue_share"]      # per passage (words in dialogue, words)

Every feature is a ratio of sums over the passages, so that an interval can be had by drawing passages. Sources: word
variety as a moving average of distinct words in a window (Covington & McFall 2010, J. Quant. Ling. 17:94, which does
not depend on a text's length); long words as in LIX (Bjornsson 1968).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.knowledge.sentences import sentences
from stages.style.cues import CUES

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
QUOTED = re.compile(r'"[^"]*(?:"|$)|“[^”]*(?:”|$)|«[^»]*(?:»|$)|„[^“”]*(?:[“”]|$)')
DASH_SPEECH = re.compile(r"\s*(?:--|[—–-])\s+")  # how a paragraph of speech begins
DASH_TURN = re.compile(r"(?<=[,.!?…])\s*(?:--|[—–])\s+")  # between what is said and who says it
WINDOW_WORDS = 100
LONG_WORD_LETTERS = 7
PUNCTUATION = {
    "commas": re.compile(","),
    "semicolons": re.compile(";"),
    "colons": re.compile(":"),
    "dashes": re.compile(r"--+|[—–]"),
    "exclamation_marks": re.compile("!"),
    "question_marks": re.compile(r"\?"),
    "ellipses": re.compile(r"…|\.{3,}"),
    "parentheses": re.compile(r"\("),
}
Ratio = tuple[float, float]


@dataclass(frozen=True)
class StyleProfile:
    """features: name -> numerator and denominator of every passage. sentence_lengths: in words, of all sentences."""

    language: str
    features: dict[str, list[Ratio]]
    sentence_lengths: list[int]

    @classmethod
    def of(cls, passages: Sequence[str], language: str) -> StyleProfile:
        """What cannot be measured in a language (person and tense) is left out."""
        lengths = [[_num_words(s) for p in text.split("\n\n") for s in sentences(p)] for text in passages]
        rows = [_features(text, [n for n in own if n], language) for text, own in zip(passages, lengths, strict=True)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        features = {name: [row.get(name, (0.0, 0.0)) for row in rows] for name in names}
        return cls(language, features, [n for own in lengths for n in own if n])

    def value(self, name: str) -> float | None:
        """None where it was not measured, or there was nothing to measure it on."""
        ratios = self.features.get(name, [])
        weight = sum(denominator for _, denominator in ratios)
        return sum(numerator for numerator, _ in ratios) / weight if weight else None

    def sentence_quantile(self, share: float) -> int:
        """The length in words that this share of the sentences does not exceed; 0 without sentences."""
        ordered = sorted(self.sentence_lengths)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0

    def to_json(self) -> dict[str, Any]:
        values = {name: self.value(name) for name in self.features}
        quantiles = {f"p{share}": self.sentence_quantile(share / 100) for share in (10, 50, 90)}
        rounded = {name: round(value, 6) for name, value in values.items() if value is not None}
        return {"language": self.language, "features": rounded, "sentence_words": quantiles}


def _features(text: str, sentence_lengths: Sequence[int], language: str) -> dict[str, Ratio]:
    words = [word.casefold() for word in WORD.findall(text)]
    paragraphs = [paragraph for paragraph in text.split("\n\n") if WORD.search(paragraph)]
    speech, narration = spoken_and_told(paragraphs)
    count = float(len(words))
    found: dict[str, Ratio] = {
        "words_per_sentence": (float(sum(sentence_lengths)), float(len(sentence_lengths))),
        "words_per_paragraph": (count, float(len(paragraphs))),
        "letters_per_word": (float(sum(map(len, words))), count),
        "long_words_share": (float(sum(len(word) >= LONG_WORD_LETTERS for word in words)), count),
        "word_variety": _variety(words),
        "dialogue_share": (float(_num_words(speech)), count),
    }
    found |= {f"{name}_per_1000": (1000.0 * len(p.findall(text)), count) for name, p in PUNCTUATION.items()}
    return found | _person_and_tense(narration, language)


def spoken_and_told(paragraphs: Sequence[str]) -> tuple[str, str]:
    """(speech, narration): by quotation marks, or by the dash that a paragraph of speech begins with."""
    speech, narration = [], []
    for paragraph in paragraphs:
        if opening := DASH_SPEECH.match(paragraph):
            turns = DASH_TURN.split(paragraph[opening.end() :])
            speech += turns[0::2]
            narration += turns[1::2]
        else:
            speech += QUOTED.findall(paragraph)
            narration.append(QUOTED.sub(" ", paragraph))
    return " \n".join(speech), " \n".join(narration)


def _person_and_tense(narration: str, language: str) -> dict[str, Ratio]:
    cues = CUES.get(language)
    if cues is None:
        return {}
    words = Counter(word.casefold() for word in WORD.findall(narration))
    person = {name: float(sum(words[word] for word in pronouns)) for name, pronouns in cues.person.items()}
    past, present = (
        float(sum(n for word, n in words.items() if pattern.fullmatch(word))) for pattern in (cues.past, cues.present)
    )
    shares = {f"{name}_person_share": (count, sum(person.values())) for name, count in person.items()}
    return {**shares, "past_tense_share": (past, past + present)}


def _variety(words: Sequence[str]) -> Ratio:
    """Distinct words over all windows, and the words in them; a text shorter than a window is one."""
    width = min(WINDOW_WORDS, len(words))
    inside = Counter(words[:width])
    distinct, num_windows = len(inside), 1 if words else 0
    for leaving, entering in zip(words, words[width:], strict=False):
        inside[entering] += 1
        inside[leaving] -= 1
        if not inside[leaving]:
            del inside[leaving]
        distinct, num_windows = distinct + len(inside), num_windows + 1
    return float(distinct), float(num_windows * width)


def _num_words(text: str) -> int:
    return len(WORD.findall(text))


def histogram(lengths: Sequence[int], width: int, num_bins: int) -> list[float]:
    """Shares of the lengths 1..width, width+1..2*width, ...; the last bin holds all longer ones."""
    counts = Counter(min((length - 1) // width, num_bins - 1) for length in lengths)
    return [counts[n] / max(1, len(lengths)) for n in range(num_bins)]
