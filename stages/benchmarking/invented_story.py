"""Text of any length about invented things, and questions about it that have one right answer.

    There was a mill by the name of Bako. Bako is kept by Lona. Bako sends away Miran. There was an inn by the name ...
    What is the cargo of the mill Bako?     right: Miran; wrong: any other value in the story

Seeded. Nobody can know the answers but from the text, and no two texts begin alike, so no server has them in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from stages.core.seeding import derived_random
from stages.evaluation.answers import contains
from stages.knowledge.invented_words import invent_word
from stages.knowledge.world import ATTRIBUTES, KINDS, Entity, fact_clause, question_word

NUM_FACTS = 3  # of each thing
NUM_QUARTERS = 4


@dataclass(frozen=True)
class StoryQuestion:
    """quarter: of the story, in which the answer stands, from 0. wrong: all other values in the story."""

    question: str
    right: str
    wrong: tuple[str, ...]
    quarter: int

    def is_recalled(self, answer: str) -> bool:
        """Whether the right value stands in the answer."""
        return bool(contains(answer, self.right))

    def is_contradicted(self, answer: str) -> bool:
        """Whether another value of the story stands in it, with or without the right one."""
        return any(contains(answer, value) for value in self.wrong)


@dataclass(frozen=True)
class Story:
    """text, and one question about each quarter of it."""

    text: str
    questions: tuple[StoryQuestion, ...]


def story(seed: int, number: int, num_chars: int) -> Story:
    """Story `number`: whole paragraphs of at most num_chars characters, but at least one for each quarter."""
    random = derived_random(seed, "benchmark story", str(number))
    entities: list[Entity] = []
    length = 0
    for entity in _entities(random):
        length += len(_paragraph(entity)) + 1
        if length > num_chars and len(entities) >= NUM_QUARTERS:
            break
        entities.append(entity)
    values = [value for entity in entities for value in entity.facts.values()]
    questions = []
    for quarter in range(NUM_QUARTERS):
        begin, end = (len(entities) * n // NUM_QUARTERS for n in (quarter, quarter + 1))
        questions.append(_question(random, random.choice(entities[begin:end]), values, quarter))
    return Story(" ".join(map(_paragraph, entities)), tuple(questions))


def text_of(seed: int, purpose: str, num_chars: int) -> str:
    """Exactly so many characters of a story that has its own beginning for each purpose."""
    parts, length = [], 0
    for entity in _entities(derived_random(seed, "benchmark text", purpose)):
        parts.append(_paragraph(entity))
        length += len(parts[-1]) + 1
        if length > num_chars:
            break
    return " ".join(parts)[:num_chars]


def _entities(random: Random) -> Iterator[Entity]:
    """Without end; no name or value comes twice while there are others."""
    used: set[str] = set()

    def fresh() -> str:
        for _ in range(100):
            if (word := invent_word(random, reserved=True)) not in used:
                break
        used.add(word)
        return word

    while True:
        facts = {attribute: fresh() for attribute in random.sample(ATTRIBUTES, NUM_FACTS)}
        yield Entity(random.choice(KINDS), fresh(), facts)


def _paragraph(entity: Entity) -> str:
    clauses = " ".join(f"{fact_clause(entity, attribute)}." for attribute in entity.facts)
    return f"There was {entity.kind_with_article} by the name of {entity.name}. {clauses}"


def _question(random: Random, entity: Entity, values: list[str], quarter: int) -> StoryQuestion:
    attribute = random.choice(list(entity.facts))
    right = entity.facts[attribute]
    wrong = tuple(dict.fromkeys(value for value in values if value != right))
    question = f"{question_word(attribute)} is the {attribute} of {entity.full_name}?"
    return StoryQuestion(question, right, wrong, quarter)
