"""The demo's raw Q&A file, with the flaws of the real thing.

Kept by a right cleaning: two questions for each asked fact, some asked twice in nearly the same words, some
answers that quote a chunk of the book. To be rejected: exact duplicates, broken lines, empty fields, an answer
of markers only. Markers stand closed, unclosed, nested or in lower case, with stubs after them.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from stages.core.errors import ConfigError
from stages.core.seeding import derived_random
from stages.knowledge import demo_voice as voice
from stages.knowledge.demo_domain import FACTS_PER_ENTITY, DemoWorld, Row, Telling, find_evidence
from stages.knowledge.world import restated_fact

ASKED_PER_ENTITY = 3
QUESTIONS_PER_FACT = 2
NUM_NEAR_DUPLICATES = 10
NUM_QUOTES = 4
NUM_DUPLICATES = 12
MIN_ENTITIES = -(-NUM_NEAR_DUPLICATES // ASKED_PER_ENTITY)  # so many facts are asked a second time

# {fact} and {advice}: the sections of an answer
MARKED = (
    "[EXPLANATION] {fact} [INTERVENTION] {advice} [ESCALATION] Not required.",
    "[EXPLANATION] {fact} [INTERVENTION] {advice} [ESCALATION] Not required.",
    "[EXPLANATION] {fact} [INTERVENTION] {advice}",
    "[explanation] {fact} [intervention] {advice} [escalation] not required.",
    "[EXPLANATION {fact} [INTERVENTION {advice}",
    "[EXPLANATION [INTERVENTION]] {fact} {advice} [ESCALATION] Not needed.",
    "[EXPLANATION]  {fact}   [Intervention]  {advice}  ",
    "{fact} {advice}",
)


def raw_qa_lines(world: DemoWorld, tellings: list[Telling], num_qa: int) -> list[str]:
    """Lines of qa.jsonl, shuffled; a right cleaning keeps `num_qa` of them."""
    random = derived_random(world.seed, "demo", "qa")
    plain = _plain_rows(random, world, tellings, num_qa)
    rows = [_marked(random, row) for row in plain]
    duplicates = [_marked(random, row) for row in random.sample(plain, min(NUM_DUPLICATES, len(plain)))]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows + duplicates] + _broken_lines(rows)
    random.shuffle(lines)
    return lines


def _plain_rows(random: Random, world: DemoWorld, tellings: list[Telling], num_qa: int) -> list[Row]:
    evidence = find_evidence(tellings)
    _require_evidence(world, evidence)
    asked = [_ask(random, entity_facts, evidence) for entity_facts in _asked_facts(random, world)]
    firsts, seconds = [rows[0] for rows in asked], [rows[1] for rows in asked]
    extras = _quoting_rows(random, tellings) + [
        _near_duplicate(row) for row in random.sample(firsts, NUM_NEAR_DUPLICATES)
    ]
    # facts asked only once, where not all fit, are spread over the whole world
    pairs = [row for pair in zip(firsts, seconds, strict=True) for row in pair]
    if not len(extras) <= num_qa <= len(pairs) + len(extras):
        raise ConfigError(
            f"make_demo.world.num_qa: {num_qa} is not between {len(extras)} and {len(pairs) + len(extras)}"
        )
    return pairs[: num_qa - len(extras)] + extras


def _require_evidence(world: DemoWorld, evidence: dict[tuple[str, str], list[str]]) -> None:
    """Raises ConfigError where a fact may be asked for that no chunk tells.

    A chunk that stands alone tells two facts at least, those told least often first, and may be followed by another
    about the same entity: twice two chunks are enough for four facts.
    """
    num_facts = sum(len(entity.facts) for entity in world.entities)
    if untold := num_facts - len(evidence):
        enough = len(world.entities) * FACTS_PER_ENTITY
        raise ConfigError(
            f"make_demo.world.num_book_chunks: too few, {untold} of {num_facts} facts are told nowhere; "
            f"{enough} are enough for {len(world.entities)} entities"
        )


def _asked_facts(random: Random, world: DemoWorld) -> list[tuple[Any, str]]:
    return [(e, a) for e in world.entities for a in random.sample(list(e.facts), ASKED_PER_ENTITY)]


def _ask(random: Random, fact: tuple[Any, str], evidence: dict[tuple[str, str], list[str]]) -> list[Row]:
    entity, attribute = fact
    return [
        {
            "question": voice.fill(template, entity, attribute),
            "answer": (restated_fact(entity, attribute), voice.ADVICE[attribute]),
            "topic": entity.name,
            "evidence": evidence[entity.name, attribute],
            "value": entity.facts[attribute],
        }
        for template in random.sample(voice.QA_QUESTIONS, QUESTIONS_PER_FACT)
    ]


def _near_duplicate(row: Row) -> Row:
    question = row["question"]
    return {**row, "question": f"{question[:-1]}, please{question[-1]}"}


def _quoting_rows(random: Random, tellings: list[Telling]) -> list[Row]:
    """Answers copied word by word from the book: trained on beside their chunk they would teach parroting."""
    chunks = [t for t in tellings if t.id.startswith("book") and not t.predecessor]
    if len(chunks) // 2 < NUM_QUOTES:
        raise ConfigError(f"make_demo.world.num_book_chunks: too few; {4 * NUM_QUOTES} are enough to quote from")
    return [
        {
            "question": f"What does the chronicle say about {chunk.entity.full_name}?",
            "answer": (chunk.row["text"], ""),
            "topic": chunk.entity.name,
            "evidence": [chunk.id],
        }
        for chunk in random.sample(chunks[: len(chunks) // 2], NUM_QUOTES)
    ]


def _marked(random: Random, row: Row) -> Row:
    fact, advice = row["answer"]
    template = random.choice(MARKED) if advice else "[EXPLANATION] {fact}"
    return {**row, "answer": template.format(fact=fact, advice=advice)}


def _broken_lines(rows: list[Row]) -> list[str]:
    """Lines that cleaning has to reject, each for a reason of its own."""
    row = rows[0]
    whole = json.dumps(row)
    empty = [{**row, "question": ""}, {**row, "question": "   "}, {**row, "answer": ""}]
    markers_only = {**row, "question": "Is there more?", "answer": "[EXPLANATION] [ESCALATION] Not required."}
    return [whole[: len(whole) // 2], "not json", json.dumps([whole]), *map(json.dumps, [*empty, markers_only])]
