"""The raw material of the demo domain: a book, articles, interviews and Q&A about one invented world.

Every fact is told several times: in the book, in its last chapters once more (they are held out to measure
perplexity), and in the articles. Q&A rows name the chunks that hold their answer as `evidence`, by the ids
that `ingest` gives them: `<kind>-<line number, four digits>`; one that can be read on its own comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from stages.core.errors import ConfigError
from stages.core.seeding import derived_random
from stages.knowledge import demo_voice as voice
from stages.knowledge.invented_words import SYLLABLES, invent_word, split_word
from stages.knowledge.world import ATTRIBUTES, KINDS, Entity

FACTS_PER_ENTITY = 4
NUM_CHAPTERS = 20
CHUNKS_PER_ARTICLE = 5
MAX_ENTITIES = len(SYLLABLES)  # their names differ in both syllables
CONTINUED_SHARE = 0.15  # where a second chunk about an entity may follow; about a tenth of all chunks

Row = dict[str, Any]


@dataclass(frozen=True)
class Telling:
    """One chunk: which facts of which entity it tells; one with a `predecessor` is not understood without it."""

    id: str
    entity: Entity
    attributes: list[str]
    predecessor: str
    row: Row


@dataclass
class DemoWorld:
    """Entities, and how often each fact has been told in a chunk that stands alone."""

    seed: int
    entities: list[Entity]
    num_told: Counter[tuple[str, str]] = field(default_factory=Counter)  # (name, attribute)


def invent_world(seed: int, num_entities: int, label: str = "demo", nouns: Sequence[str] | None = None) -> DemoWorld:
    """Entities whose names differ in their first syllable wherever they can, so that a question finds its own.

    label: worlds of different labels have nothing in common. nouns: what the entities are; None: KINDS.
    """
    random = derived_random(seed, label, "entities")
    nouns = nouns or KINDS
    kinds = [nouns[number % len(nouns)] for number in range(num_entities)]
    names = _distinct_names(random, num_entities)
    used = set(names)
    entities = []
    for kind, name in zip(kinds, names, strict=True):
        attributes = random.sample(ATTRIBUTES, FACTS_PER_ENTITY)
        entities.append(Entity(kind, name, {a: _unused_word(random, used) for a in attributes}))
    return DemoWorld(seed, entities)


def _distinct_names(random: Random, count: int) -> list[str]:
    names: dict[str, str] = {}
    seconds: set[str] = set()
    while len(names) < count:
        name = invent_word(random, reserved=True)
        first, second = split_word(name) or ("", "")
        if first not in names and second not in seconds:
            names[first] = name
            seconds.add(second)
    return list(names.values())


def _unused_word(random: Random, used: set[str]) -> str:
    while (word := invent_word(random, reserved=True)) in used:
        pass
    used.add(word)
    return word


def tell_book(world: DemoWorld, num_chunks: int) -> list[Telling]:
    """Chapters that go round all entities again and again, so that the last ones tell what is known by then."""
    random = derived_random(world.seed, "demo", "book")
    entities = _rounds(random, world.entities)
    tellings: list[Telling] = []
    for chapter, size in enumerate(_chapter_sizes(num_chunks), start=1):
        section = {"book": "The chronicle", "chapter": f"Chapter {chapter}"}
        end = len(tellings) + size
        while len(tellings) < end:
            entity = next(entities)
            tellings.append(_tell(world, random, "book", section, entity, tellings))
            if len(tellings) < end and random.random() < CONTINUED_SHARE:
                tellings.append(_tell(world, random, "book", section, entity, tellings, continued=True))
    return tellings


def tell_articles(world: DemoWorld, num_chunks: int) -> list[Telling]:
    """Articles of five chunks about two entities each, two or three chunks to an entity."""
    random = derived_random(world.seed, "demo", "articles")
    entities = _rounds(random, world.entities)
    tellings: list[Telling] = []
    while len(tellings) < num_chunks:
        pair = [next(entities), next(entities)]
        section = {"title": f"{pair[0].name} and {pair[1].name}"}
        turn = random.choice((2, 3))
        for position in range(min(CHUNKS_PER_ARTICLE, num_chunks - len(tellings))):
            entity = pair[position >= turn]
            may_go_on = position not in (0, turn) and not tellings[-1].predecessor
            continued = may_go_on and random.random() < CONTINUED_SHARE
            tellings.append(_tell(world, random, "article", section, entity, tellings, continued))
    return tellings


def _rounds(random: Random, entities: list[Entity]) -> Iterator[Entity]:
    while True:
        yield from random.sample(entities, len(entities))


def _chapter_sizes(num_chunks: int) -> list[int]:
    """Even, the longer chapters last."""
    small, num_longer = divmod(num_chunks, NUM_CHAPTERS)
    sizes = [small] * (NUM_CHAPTERS - num_longer) + [small + 1] * num_longer
    return [size for size in sizes if size]


def _tell(
    world: DemoWorld,
    random: Random,
    kind: str,
    section: dict[str, str],
    entity: Entity,
    before: list[Telling],
    continued: bool = False,
) -> Telling:
    """The next chunk about an entity: what was told least often so far; a continued one goes on to other facts."""
    order = random.sample(list(entity.facts), len(entity.facts))
    just_told = before[-1].attributes if continued else []
    order.sort(key=lambda attribute: (attribute in just_told, world.num_told[entity.name, attribute]))
    attributes = order[: 2 if continued else random.choice((2, 2, 3))]
    if not continued:
        world.num_told.update((entity.name, attribute) for attribute in attributes)
    text = voice.telling(random, entity, attributes, kind, continued)
    questions = [voice.fill(random.choice(voice.CHUNK_QUESTIONS), entity, attribute) for attribute in attributes]
    predecessor = before[-1].id if continued else ""
    row = {**section, "text": text, "questions": questions}
    return Telling(f"{kind}-{len(before) + 1:04d}", entity, attributes, predecessor, row)


def find_evidence(tellings: list[Telling]) -> dict[tuple[str, str], list[str]]:
    """(name, attribute) -> ids of the chunks that tell it: those that stand alone, then continued ones.

    A continued chunk is listed with the chunk before it, without which nobody knows whom it is about.
    """
    evidence: dict[tuple[str, str], list[str]] = {}
    for telling in sorted(tellings, key=lambda telling: bool(telling.predecessor)):
        for attribute in telling.attributes:
            known = evidence.setdefault((telling.entity.name, attribute), [])
            known.extend(i for i in (telling.id, telling.predecessor) if i and i not in known)
    return evidence


def ask_interviews(world: DemoWorld, count: int) -> list[Row]:
    """Interview rows: two facts of one entity, in the words of somebody who lives there."""
    random = derived_random(world.seed, "demo", "interviews")
    rows = []
    for entity in random.sample(world.entities, count):
        question, answer = voice.interview(random, entity, random.sample(list(entity.facts), 2))
        rows.append({"question": question, "answer": answer, "topic": entity.name})
    return rows


def boundary_rows(seed: int, num_generic: int, num_finance: int) -> list[Row]:
    """Questions outside the domain, with the short answers of a persona that knows its limits."""
    pairs = [(question, topic) for topic in voice.TOPICS for question in voice.BOUNDARY_QUESTIONS]
    if num_generic > len(pairs) or num_finance > len(voice.FINANCE_QUESTIONS):
        raise ConfigError(
            f"make_demo: at most {len(pairs)} generic and {len(voice.FINANCE_QUESTIONS)} finance boundary examples"
        )
    rows: list[Row] = [
        {"question": question.format(topic=topic), "answer": voice.boundary_answer(topic), "kind": "generic"}
        for question, topic in pairs[:num_generic]
    ]
    for question in voice.FINANCE_QUESTIONS[:num_finance]:
        rows.append({"question": question, "answer": voice.FINANCE_ANSWER, "kind": "finance"})
    derived_random(seed, "demo", "boundary").shuffle(rows)
    return rows
