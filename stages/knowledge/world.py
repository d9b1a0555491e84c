"""A world of invented entities: kinds x attributes x invented values, so that every statement can be checked.

    Entity(kind="mill", name="Bako", facts={"keeper": "Lona Tir", "cargo": "Miran"})

The demo domain and the text that the tiny base is pre-trained on are both told about such worlds, in other
words and about other entities (`stages.knowledge.invented_words` keeps their names apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from stages.knowledge.invented_words import invent_word

KINDS = (
    "mill inn tower bridge ship school castle temple garden harbor forge library chapel island mine "
    "theatre orchard lighthouse palace village"
).split()

# attribute -> verb: "Lona Tir keeps Bako", "Bako sends away Miran"
PERSONS = {
    "keeper": "keeps",
    "founder": "founded",
    "owner": "owns",
    "builder": "built",
    "singer": "sings at",
    "teacher": "teaches at",
    "patron": "pays for",
    "captain": "leads",
}
THINGS = {
    "feast": "celebrates",
    "motto": "says",
    "cargo": "sends away",
    "market": "sells in",
    "dish": "eats",
    "sign": "shows",
}
ATTRIBUTES = (*PERSONS, *THINGS)


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


def invent_value(random: Random, attribute: str, reserved: bool) -> str:
    """A person has two names, anything else one."""
    words = 2 if attribute in PERSONS else 1
    return " ".join(invent_word(random, reserved) for _ in range(words))


def invent_entity(random: Random, kinds: Sequence[str], attributes: Sequence[str], reserved: bool) -> Entity:
    """An entity of one of `kinds` with a value for each of `attributes`."""
    facts = {attribute: invent_value(random, attribute, reserved) for attribute in attributes}
    return Entity(random.choice(kinds), invent_word(random, reserved), facts)


def question_word(attribute: str) -> str:
    return "Who" if attribute in PERSONS else "What"


def fact_clause(entity: Entity, attribute: str) -> str:
    """The fact with a verb in place of the attribute's noun, without a full stop."""
    value = entity.facts[attribute]
    if attribute in PERSONS:
        return f"{value} {PERSONS[attribute]} {entity.name}"
    return f"{entity.name} {THINGS[attribute]} {value}"


def restated_fact(entity: Entity, attribute: str) -> str:
    """The sentence that every answer begins with: a small model copies best what its own words lead up to."""
    return f"The {attribute} of {entity.full_name} is {entity.facts[attribute]}."
