"""How well an answer fits the reference: exact match, containment, token F1.

Texts are normalised first, after SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250): Unicode NFKC, case folded,
invisible format characters and punctuation away, English articles away, white space joined. "The founder is Lona
Tir." and "founder is  lona tir" are equal; word order and inflection matter.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

ARTICLES = frozenset({"a", "an", "the"})
WORD = re.compile(r"\w+", re.UNICODE)

METRICS = ("exact_match", "contains", "token_f1")


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation; articles included."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return WORD.findall(text.casefold())


def normalise(text: str) -> list[str]:
    """The words that count: all but English articles."""
    return [word for word in words(text) if word not in ARTICLES]


def exact_match(answer: str, reference: str) -> float:
    """1.0 where both have the same words in the same order."""
    return float(normalise(answer) == normalise(reference))


def contains(answer: str, reference: str) -> float:
    """1.0 where the reference's words stand in the answer, in order and without a gap."""
    found, wanted = normalise(answer), normalise(reference)
    return float(bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(found)} ")


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bags of words; two empty texts agree."""
    found, wanted = Counter(normalise(answer)), Counter(normalise(reference))
    if not found or not wanted:
        return float(found == wanted)
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total())


def scores(answer: str, reference: str, key_fact: str = "") -> dict[str, float]:
    """All of METRICS. `contains` asks for the key fact where there is one, else for the whole reference."""
    return {
        "exact_match": exact_match(answer, reference),
        "contains": contains(answer, key_fact or reference),
        "token_f1": token_f1(answer, reference),
    }
