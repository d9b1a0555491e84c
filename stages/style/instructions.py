"""What a user might have asked to get a passage: its length, how it opens, who appears in it. By rule, no model.

Instructor([passage, ...], "en", seed=13).instruction("verne-0017", passage)
# "Write a passage of about 450 words that opens with “The year 1866 was signalised by a …” In it appear: ..."
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from stages.core.seeding import derived_random
from stages.knowledge.kb_stemming import stems
from stages.knowledge.sentences import sentences
from stages.style.profile import DASH_TURN, WORD
from stages.style.wording import wording_of

OPENING_WORDS = 10
NUM_NAMES = 3
ROUND_WORDS = 50
MIN_NAME_LETTERS = 3
CAPITALISED_NOUNS = frozenset({"de"})  # where every noun has a capital letter, a capital says nothing
QUOTES = "\"'“”„«»‘’*_"
# What may stand before the first word of what is said, where a capital says nothing either
SPEECH_BEGINS = re.compile(r"[\"“„«:(—–]\s*$|--\s*$")


class Instructor:
    """Writes instructions for the passages of one writer, who as a whole tells names from words."""

    def __init__(self, passages: Sequence[str], language: str, seed: int) -> None:
        self._wording = wording_of(language)
        self._names_known = language not in CAPITALISED_NOUNS
        self._seed = seed
        self._lower = Counter(word for text in passages for word in WORD.findall(text) if word[0].islower())

    def instruction(self, identifier: str, passage: str) -> str:
        """One of the wordings, drawn by the identifier."""
        wording = self._wording
        template = derived_random(self._seed, "instruction", identifier).choice(wording.instructions)
        num_words = max(ROUND_WORDS, round(len(WORD.findall(passage)) / ROUND_WORDS) * ROUND_WORDS)
        names = wording.between_names.join(self.names(passage))
        told = wording.names.format(names=names) if names else ""
        opening = wording.quotes[0] + opening_of(passage) + wording.quotes[1]
        # str.replace, not str.format: braces in a passage mean nothing
        text = template.replace("{words}", str(num_words)).replace("{names}", told)
        return text.replace("{opening}", opening)

    def names(self, passage: str) -> list[str]:
        """The most frequent names of a passage, those of several words whole; ties by where they come first."""
        if not self._names_known:
            return []
        forms: dict[tuple[str, ...], Counter[str]] = {}  # one name in its cases: Катя, Катей, Катю
        for name in self._capitalised(passage):
            forms.setdefault(tuple(stems(name, "english")), Counter())[name] += 1
        parts = {(part,) for key in forms if len(key) > 1 for part in key}
        chosen = [key for key in forms if key not in parts]
        chosen.sort(key=lambda key: -forms[key].total())
        return [max(forms[key], key=lambda name: forms[key][name]) for key in chosen[:NUM_NAMES]]

    def _capitalised(self, passage: str) -> Iterator[str]:
        """Runs of capitalised words inside sentences, of which at least one is a name: New York for York."""
        for sentence in (part for p in passage.split("\n\n") for s in sentences(p) for part in DASH_TURN.split(s)):
            run: list[str] = []
            end = 0
            for number, match in enumerate(WORD.finditer(sentence)):
                capitalised = _is_capitalised(match[0])
                if run and (sentence[end : match.start()] != " " or not capitalised):
                    yield from self._named(run)
                    run = []
                if capitalised and number and not SPEECH_BEGINS.search(sentence[: match.start()]):
                    run.append(match[0])
                end = match.end()
            yield from self._named(run)

    def _named(self, run: Sequence[str]) -> Iterator[str]:
        """The run, where one of its words is never begun with a small letter by this writer."""
        if any(len(word) >= MIN_NAME_LETTERS and not self._lower[word.casefold()] for word in run):
            yield " ".join(run)


def _is_capitalised(word: str) -> bool:
    """Neither shouted nor the pronoun I."""
    return word[0].isupper() and (word[1:].islower() or "-" in word)


def opening_of(passage: str) -> str:
    """The first words of a passage, on one line, with an ellipsis; without quotation marks around them."""
    words = passage.split()
    shown = " ".join(words[:OPENING_WORDS]).strip(QUOTES).removeprefix("-- ").removeprefix("— ")
    return f"{shown.rstrip('.,;:!?—–-…')} …" if len(words) > OPENING_WORDS else shown
