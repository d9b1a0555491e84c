"""Invented names: the same syllables everywhere, and two worlds that cannot share a name.

A word is two syllables. Whether it belongs to the demo domain or to the world that the base model is
pre-trained on is a property of the word itself (`is_reserved`), so the two never meet, whatever the seeds.
"""

from __future__ import annotations

import re
from random import Random

# The coda is no onset, so that a word falls into its syllables in one way only, for a tokenizer too.
ONSETS = "bdfghklmprstvwz"
VOWELS = "aeiou"
CODAS = ("", "n")
SYLLABLES = [onset + vowel + coda for onset in ONSETS for vowel in VOWELS for coda in CODAS]

RESERVED_EVERY = 5  # one word in five is kept for domains; the base never sees it
NUM_RESERVED_WORDS = len(SYLLABLES) ** 2 // RESERVED_EVERY

_NUMBER = {syllable: number for number, syllable in enumerate(SYLLABLES)}
_TWO_SYLLABLES = re.compile(f"([{ONSETS}][{VOWELS}]n?)([{ONSETS}][{VOWELS}]n?)")


def split_word(word: str) -> tuple[str, str] | None:
    """The two syllables of an invented word, None for any other word."""
    match = _TWO_SYLLABLES.fullmatch(word.lower())
    return (match[1], match[2]) if match else None


def is_reserved(word: str) -> bool:
    """True for an invented word that only a domain may use."""
    syllables = split_word(word)
    return syllables is not None and _belongs_to_domain(*syllables)


def _belongs_to_domain(first: str, second: str) -> bool:
    return (_NUMBER[first] + _NUMBER[second]) % RESERVED_EVERY == 0


def invent_word(random: Random, reserved: bool) -> str:
    """A capitalised word of two syllables: a reserved one for a domain, any other for the base world."""
    while True:
        first, second = random.choice(SYLLABLES), random.choice(SYLLABLES)
        if _belongs_to_domain(first, second) == reserved:
            return (first + second).capitalize()
