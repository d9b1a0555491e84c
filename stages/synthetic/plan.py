"""Which chunk is asked for how many pairs in which style: even over chunks, documents and styles.

No chunk gets a second pair before every chunk has its first; meanwhile documents take turns, and so do styles. What
`limit` cuts off is therefore the end of a fair queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from stages.core.seeding import derived_random
from stages.knowledge.records import Chunk

POTENTIAL_QUESTIONS = "potential_questions"  # stands for a style where questions without answers are asked for


@dataclass(frozen=True)
class Task:
    """`count` pairs in one style (or questions without answers) about one chunk."""

    chunk: Chunk
    style: str
    count: int


def plan(chunks: Sequence[Chunk], styles: Sequence[str], pairs_per_chunk: int, limit: int, seed: int) -> list[Task]:
    """Tasks in the order of asking. pairs_per_chunk: of each style. limit: pairs in all; 0: no limit."""
    order = in_turns(chunks, seed)
    slots = islice(_slots(order, styles, pairs_per_chunk), limit or None)
    counts = Counter((chunk.id, style) for chunk, style in slots)
    by_id = {chunk.id: chunk for chunk in chunks}
    return [Task(by_id[chunk_id], style, count) for (chunk_id, style), count in counts.items()]


def in_turns(chunks: Sequence[Chunk], seed: int) -> list[Chunk]:
    """All chunks: documents take turns, in a seeded order, each with its chunks in a seeded order."""
    random = derived_random(seed, "generate_sft", "plan")
    documents: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        documents.setdefault(chunk.document, []).append(chunk)
    shuffled = [random.sample(own, len(own)) for own in documents.values()]
    random.shuffle(shuffled)
    return [chunk for chunk in chain.from_iterable(zip_longest(*shuffled)) if chunk is not None]


def _slots(order: Sequence[Chunk], styles: Sequence[str], pairs_per_chunk: int) -> Iterator[tuple[Chunk, str]]:
    for turn in range(len(styles) * pairs_per_chunk):
        for place, chunk in enumerate(order):
            yield chunk, styles[(place + turn) % len(styles)]
