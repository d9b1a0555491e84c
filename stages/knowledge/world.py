"""A world of invented entities: kinds x attributes x invented values, so that every statement can be checked.

    Entity(kind="mill", name="Bako", facts={"keeper": "Lona", "cargo": "Miran"})

The demo domain and the text that the tiny base is pre-trained on are both told about such worlds, in other
words and about other entities (`stages.knowledge.invented_words` keeps their names apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from stages.knowledge.invented_words import invent_word

KINDS = (
    "mill",
    "inn",
    "tower",
    "bridge",
    "ship",
    "school",
    "castle",
    "temple",
    "garden",
    "harbor",
    "forge",
    "library",
    "chapel",
    "island",
    "mine",
    "theatre",
    "orchard",
    "lighthouse",
    "palace",
    "village",
)

# attribute -> what is said with a verb instead: "Bako is kept by Lona", "Bako sends away Miran"
PERSONS = {
    "keeper": "is kept by",
    "founder": "was founded by",
    "owner": "is owned by",
    "builder": "was built by",
    "singer": "hears the songs of",
    "teacher": "learns from",
    "patron": "is paid for by",
    "captain": "is led by",
}
THINGS = {
    "feast": "celebrates",
    "motto": "says",
    "cargo": "sends away",
    "market": "sells in",
    "dish": "eats",
    "sign": "shows",
}
VERBS = PERSONS | THINGS
ATTRIBUTES = tuple(VERBS)


@dataclass(frozen=True)
class Entity:
    """One thing of the world; `facts` maps attribute to value."""

    kind: str
    name: str
    facts: Mapping[str, str]

    @property
    def kind_with_article(self) -> str:
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    @property
    def full_name(self) -> str:
        return f"the {self.kind} {self.name}"


def invent_entity(random: Random, kinds: Sequence[str], attributes: Sequence[str], reserved: bool) -> Entity:
    """An entity of one of `kinds` with a value for each of `attributes`."""
    facts = {attribute: invent_word(random, reserved) for attribute in attributes}
    return Entity(random.choice(kinds), invent_word(random, reserved), facts)


def question_word(attribute: str) -> str:
    """How a question for the attribute begins."""
    return "Who" if attribute in PERSONS else "What"


def fact_clause(entity: Entity, attribute: str) -> str:
    """The fact with a verb in place of the attribute's noun, without a full stop."""
    return f"{entity.name} {VERBS[attribute]} {entity.facts[attribute]}"


def restated_fact(entity: Entity, attribute: str) -> str:
    """The sentence that every answer begins with: a small model copies best what its own words lead up to."""
    return f"The {attribute} of {entity.full_name} is {entity.facts[attribute]}."
