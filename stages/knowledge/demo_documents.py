"""The demo domains made of documents: what stands in them, and the questions that people have asked about them.

    Manuscript(name="documents/medical/03-bako.pdf", title="Bako and Tarn", sections=[("The clinic Bako", [...])])

One invented world a set; every document tells about a few entities that no other one mentions, so that a document
can be held out. Every fact is told, most of them twice and in other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from stages.core.seeding import derived_random
from stages.knowledge import demo_voice as voice
from stages.knowledge.demo_domain import DemoWorld, invent_world
from stages.knowledge.world import Entity, restated_fact

# the nouns of a set's entities; a set of another name is about what every demo world is about
SET_KINDS = {
    "medical": ("clinic", "hospital", "pharmacy", "ward"),
    "legal": ("court", "council", "chamber", "office"),
}
# {fact} is the sentence with which a factual answer is done
MANNERS = {
    "factual": ("{fact}",),
    "socratic": ("Let us look together. {who} is the {attribute} of {full_name}? {fact} And why do you ask about it?",),
    "conversational": ("Oh, I know that one! {fact} Shall we go on?",),
}


@dataclass(frozen=True)
class Manuscript:
    """A document before it is a file. sections: heading and paragraphs; name: below raw_dir, its suffix the format."""

    name: str
    title: str
    sections: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class DocumentSet:
    """A world and the documents that tell about it; document_of: entity's name -> document's name."""

    world: DemoWorld
    manuscripts: list[Manuscript]
    document_of: dict[str, str]


def write_set(seed: int, name: str, num_documents: int, num_entities: int, formats: Sequence[str]) -> DocumentSet:
    """A set of `num_documents` documents about `num_entities` entities each; formats take turns."""
    world = invent_world(seed, num_documents * num_entities, f"documents/{name}", SET_KINDS.get(name))
    random = derived_random(seed, "documents", name, "text")
    manuscripts: list[Manuscript] = []
    document_of: dict[str, str] = {}
    for number in range(num_documents):
        entities = world.entities[number * num_entities : (number + 1) * num_entities]
        suffix = formats[number % len(formats)]
        file = f"{number + 1:02d}-{'-and-'.join(entity.name.lower() for entity in entities[:2])}.{suffix}"
        manuscript = _manuscript(random, f"documents/{name}/{file}", entities)
        manuscripts.append(manuscript)
        document_of.update((entity.name, manuscript.name) for entity in entities)
    return DocumentSet(world, manuscripts, document_of)


def _manuscript(random: Random, name: str, entities: Sequence[Entity]) -> Manuscript:
    *others, last = [entity.name for entity in entities]
    title = f"{', '.join(others)} and {last}" if others else last
    return Manuscript(name, title, [(voice.fill("{full_name}", e), _paragraphs(random, e)) for e in entities])


def _paragraphs(random: Random, entity: Entity) -> list[str]:
    """Twice through the facts, two a paragraph, as a book and as an article would tell them."""
    paragraphs = []
    for kind in ("book", "article"):
        order = random.sample(list(entity.facts), len(entity.facts))
        for at in range(0, len(order), 2):
            paragraphs.append(voice.telling(random, entity, order[at : at + 2], kind, continued=False))
    return paragraphs


def own_pairs(seed: int, documents: DocumentSet, label: str, style: str, share: float) -> list[dict[str, Any]]:
    """Questions and answers in one manner, about a share of the facts of every entity; `source` names the document.

    label: pairs of different labels are drawn on their own.
    """
    random = derived_random(seed, "documents", "pairs", label, *(m.name for m in documents.manuscripts[:1]))
    rows = []
    for entity in documents.world.entities:
        attributes = random.sample(list(entity.facts), max(1, round(share * len(entity.facts))))
        for attribute in attributes:
            template = random.choice(MANNERS[style]).replace("{fact}", restated_fact(entity, attribute))
            rows.append(
                {
                    "question": voice.fill(random.choice(voice.QA_QUESTIONS), entity, attribute),
                    "answer": voice.fill(template, entity, attribute),
                    "source": documents.document_of[entity.name],
                    "value": entity.facts[attribute],
                }
            )
    return rows
