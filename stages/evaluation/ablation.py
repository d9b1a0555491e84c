"""What should stand for a record in the index? The same questions against three ways of embedding it.

    questions   the questions that it answers, one vector each (what build_index does)
    text        its text alone, what goes into the prompt
    answers     its questions and the text that answers them, as one passage

The variant that the index was built with is taken from it; the others are embedded here, and cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.schema import Embedder
from stages.evaluation.rankings import rank
from stages.knowledge.records import Example

if TYPE_CHECKING:
    from stages.retrieval.index import Index

VARIANTS = ("questions", "text", "answers")

Rankings = dict[str, list[str]]  # example id -> record ids, best first


def rank_by_variant(
    examples: Sequence[Example], index: Index, kinds: Sequence[str], embedder: Embedder, cache: Path
) -> dict[str, Rankings]:
    """For each of VARIANTS, the records of `kinds` in the order in which each question finds them.

    Searches exactly, without a store. Examples that are not in the index have no query vector and are left out.
    """
    import numpy as np

    asked = [example for example in examples if example.id in index and index.number(example.id) < len(index.queries)]
    if not asked:
        return {variant: {} for variant in VARIANTS}
    queries = np.stack([index.query_vector(example.id) for example in asked])
    rankings = {}
    for variant in VARIANTS:
        vectors, owners = _vectors(index, kinds, variant, embedder, cache)
        rows = rank(queries, vectors, owners)
        ids = [[index.records[number].id for number in row] for row in rows]
        rankings[variant] = {example.id: row for example, row in zip(asked, ids, strict=True)}
    return rankings


def _vectors(
    index: Index, kinds: Sequence[str], variant: str, embedder: Embedder, cache: Path
) -> tuple[Any, list[int]]:
    """Unit vectors [V, D] of the records of `kinds`, and the number of the record that each stands for."""
    import numpy as np

    from stages.retrieval.embedder_files import embedder_fingerprint
    from stages.retrieval.embedding import cached_encode, load_embedder
    from stages.retrieval.index import flatten, texts_of

    numbers = [number for number, record in enumerate(index.records) if record.kind in kinds]
    if index.manifest.get("embed") == variant:
        rows = [row for number in numbers for row in range(*index.entries_of(number).indices(len(index.vectors)))]
        return index.vectors[rows], [int(index.entries[row]) for row in rows]
    texts, owners = flatten([texts_of(index.records[number], variant) for number in numbers])
    fingerprint = embedder_fingerprint(embedder)
    vectors = cached_encode(lambda: load_embedder(embedder), cache, fingerprint, texts, "passage")
    return vectors, [numbers[int(n)] for n in np.asarray(owners)]
