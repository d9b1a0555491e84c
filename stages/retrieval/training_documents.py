"""The documents that stand in the prompt of each training example.

retrieved     what search finds near the question, each hit with the chunks that follow it
distracted    the same, among near chunks that do not hold the answer
without_gold  only such chunks: the right ones are withheld
none          nothing is near enough
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from stages.core.seeding import derived_random
from stages.knowledge.records import IndexRecord
from stages.knowledge.shingles import words
from stages.retrieval.documents import Document, join_siblings
from stages.retrieval.embedding import Float32
from stages.retrieval.search import Hit, Searcher

SPARE = 8  # near chunks looked at for each distractor wanted, as some turn out to hold the answer


@dataclass(frozen=True)
class Choice:
    """How to choose; see conf/build_rag_data."""

    kinds: Sequence[str]
    top_k: int
    max_distance: float
    num_following: int
    num_distractors: int
    without_gold_share: float
    seed: int


@dataclass(frozen=True)
class Query:
    """A question, its vector float32[D], its answer, and what is known about where the answer stands.

    quoting: chunks that quote the answer, which never become its documents. plain: retrieved documents only.
    """

    id: str
    question: str
    answer: str
    vector: Float32
    evidence: Set[str] = frozenset()
    quoting: Set[str] = frozenset()
    plain: bool = False


@dataclass(frozen=True)
class Chosen:
    """documents: in the order of the prompt. need: a rank for each, 0 for what is needed most.

    num_quoting: chunks that were passed over because they quote the answer.
    """

    kind: str
    documents: list[Document] = field(default_factory=list)
    need: list[int] = field(default_factory=list)
    num_quoting: int = 0


def choose_documents(searcher: Searcher, queries: Sequence[Query], choice: Choice) -> list[Chosen]:
    """The documents of each query."""
    right = _search(searcher, queries, [query.quoting for query in queries], choice.top_k, choice, choice.max_distance)
    gold = [_with_following(searcher, hits, query.quoting, choice) for query, hits in zip(queries, right, strict=True)]
    num_quoting = _num_passed_over(searcher, queries, choice)
    wanted = [_num_distractors(*pair, choice) for pair in zip(queries, gold, strict=True)]
    wrong = _distractors(searcher, queries, gold, wanted, choice)
    return [_arrange(*row, choice) for row in zip(queries, gold, wrong, num_quoting, strict=True)]


def _search(
    searcher: Searcher,
    queries: Sequence[Query],
    exclude: Sequence[Set[str]],
    top_k: int,
    choice: Choice,
    max_distance: float | None,
) -> list[list[Hit]]:
    if not queries:
        return []
    vectors = np.stack([query.vector for query in queries])
    texts = [query.question for query in queries]
    return searcher.search(vectors, texts, top_k, choice.kinds, max_distance, exclude)


def _with_following(searcher: Searcher, hits: Sequence[Hit], forbidden: Set[str], choice: Choice) -> list[Document]:
    def siblings(record: IndexRecord) -> list[IndexRecord]:
        found = searcher.siblings(record, 0, choice.num_following)
        # up to the first gap: what comes after a chunk that is left out does not follow the hit
        return list(takewhile(lambda r: r.id not in forbidden and r.number - record.number == found.index(r), found))

    return join_siblings(hits, siblings)


def _num_passed_over(searcher: Searcher, queries: Sequence[Query], choice: Choice) -> list[int]:
    """How many chunks would be among a query's documents if they did not quote its answer."""
    tempted = [number for number, query in enumerate(queries) if query.quoting]
    asked = [queries[number] for number in tempted]
    counts = [0] * len(queries)
    hits = _search(searcher, asked, [frozenset()] * len(asked), choice.top_k, choice, choice.max_distance)
    for number, query, found in zip(tempted, asked, hits, strict=True):
        documents = _with_following(searcher, found, frozenset(), choice)
        counts[number] = len(query.quoting & {record_id for document in documents for record_id in document.ids})
    return counts


def _withholds(query: Query, choice: Choice) -> bool:
    return derived_random(choice.seed, "without gold", query.id).random() < choice.without_gold_share


def _num_distractors(query: Query, gold: Sequence[Document], choice: Choice) -> int:
    if query.plain or not gold:
        return 0
    return choice.num_distractors + (len(gold) if _withholds(query, choice) else 0)


def _distractors(
    searcher: Searcher,
    queries: Sequence[Query],
    gold: Sequence[Sequence[Document]],
    wanted: Sequence[int],
    choice: Choice,
) -> list[list[Document]]:
    """Hard negatives: the nearest documents, at any distance, that hold neither evidence nor the answer's words."""
    numbers = [number for number, count in enumerate(wanted) if count]
    asked = [queries[number] for number in numbers]
    known = [
        query.evidence | query.quoting | {record_id for document in gold[number] for record_id in document.ids}
        for number, query in zip(numbers, asked, strict=True)
    ]
    found: list[list[Document]] = [[] for _ in queries]
    hits = _search(searcher, asked, known, SPARE * max(wanted, default=0) or 1, choice, None)
    for number, query, forbidden, near in zip(numbers, asked, known, hits, strict=True):
        documents = [_with_following(searcher, [hit], forbidden, choice)[0] for hit in near]
        telling = _telling_words(query, gold[number], documents)
        for document in documents:
            fresh = not {r for other in found[number] for r in other.ids} & set(document.ids)
            if len(found[number]) < wanted[number] and fresh and not (telling and telling <= set(words(document.text))):
                found[number].append(document)
    return found


def _telling_words(query: Query, gold: Sequence[Document], others: Sequence[Document]) -> set[str]:
    """The answer's words that come from the right documents: not in the question, nor in most documents around."""
    told = {word for document in gold for word in words(document.text)}
    counts = Counter(word for document in others for word in set(words(document.text)))
    common = {word for word, count in counts.items() if 2 * count > len(others)}
    return set(words(query.answer)) & told - set(words(query.question)) - common


def _arrange(query: Query, gold: list[Document], wrong: list[Document], num_quoting: int, choice: Choice) -> Chosen:
    if not gold:
        return Chosen("none", num_quoting=num_quoting)
    if not query.plain and _withholds(query, choice):
        return Chosen("without_gold", wrong, list(range(len(wrong))), num_quoting)
    ranked = list(enumerate([*gold, *wrong]))
    if wrong:
        derived_random(choice.seed, "document order", query.id).shuffle(ranked)
    kind = "distracted" if wrong else "retrieved"
    return Chosen(kind, [document for _, document in ranked], [rank for rank, _ in ranked], num_quoting)
