"""Does a text give an answer away? The measure, and the check that no evaluation answer stands in training text.

An answer is quoted by a text that holds at least `threshold` (0.8, say) of its word trigrams: a copy, also one with
a few words changed, also one inside a longer text. An answer of fewer than MIN_WORDS words (`Yes.`, a name) says
nothing by standing somewhere: it is quoted only by a text that says just that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.core.errors import DataError
from stages.knowledge.records import QA, Chunk, Example, IndexRecord
from stages.knowledge.shingles import Shingler, quoting_pairs, words

MIN_WORDS = 6
NAMED_IN_MESSAGE = 10


@dataclass(frozen=True)
class Quote:
    """Text `text` holds `share` of the trigrams of answer `answer` (both are places in the lists given)."""

    answer: int
    text: int
    share: float


@dataclass(frozen=True)
class Leak:
    """What is wrong with evaluation row (or, for a document, training row) `row`."""

    row: str
    reason: str

    def __str__(self) -> str:
        return f"{self.row}: {self.reason}"


def find_quotes(answers: Sequence[str], texts: Sequence[str], threshold: float) -> list[Quote]:
    """Every answer with every text that quotes it, ordered by both."""
    shingler = Shingler()
    answer_words = [words(answer) for answer in answers]
    long = [n for n, found in enumerate(answer_words) if len(found) >= MIN_WORDS]
    pairs = quoting_pairs([shingler(answers[n]) for n in long], [shingler(text) for text in texts], threshold)
    quotes = [Quote(long[place], text, share) for place, text, share in pairs]
    whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        if len(found := words(text)) < MIN_WORDS:
            whole[tuple(found)].append(number)
    for number, found in enumerate(answer_words):
        if 0 < len(found) < MIN_WORDS:
            quotes += [Quote(number, text, 1.0) for text in whole.get(tuple(found), ())]
    return sorted(quotes, key=lambda quote: (quote.answer, quote.text))


def quoted_chunks(
    rows: Sequence[QA], chunks: Sequence[Chunk | IndexRecord], num_following: int, threshold: float
) -> dict[str, set[str]]:
    """Row id -> ids of the chunks that quote its answer or that its answer quotes; rows without any are left out.

    An answer may be copied from across the end of a chunk, so chunks are also tried together with those that
    follow them; such a run counts as a whole where none of its chunks quotes on its own.
    """
    found: dict[str, set[str]] = defaultdict(set)
    answers, texts = [row.answer for row in rows], [chunk.text for chunk in chunks]
    for quote in find_quotes(answers, texts, threshold):
        found[rows[quote.answer].id].add(chunks[quote.text].id)
    for quote in find_quotes(texts, answers, threshold):
        found[rows[quote.text].id].add(chunks[quote.answer].id)
    runs = _runs(chunks, num_following)
    for quote in find_quotes(answers, ["\n".join(chunk.text for chunk in run) for run in runs], threshold):
        ids = {chunk.id for chunk in runs[quote.text]}
        if not ids & found[rows[quote.answer].id]:
            found[rows[quote.answer].id] |= ids
    return {row_id: ids for row_id, ids in found.items() if ids}


def _runs(chunks: Sequence[Chunk | IndexRecord], num_following: int) -> list[list[Chunk | IndexRecord]]:
    """Every chunk with those that follow it in its section, where there are any."""
    place = {(c.kind, c.document, c.section, c.number): c for c in chunks}
    runs = [
        [
            place[key]
            for n in range(num_following + 1)
            if (key := (c.kind, c.document, c.section, c.number + n)) in place
        ]
        for c in chunks
    ]
    return [run for run in runs if len(run) > 1]


def find_leaks(
    splits: Mapping[str, Sequence[Example]],
    training_chunks: Mapping[str, str],
    document_kinds: Mapping[str, str],
    threshold: float,
) -> list[Leak]:
    """Every leak between `splits["train"]` and the other splits, ordered by row.

    training_chunks: id -> text of what the model is also trained on (the book). document_kinds: id -> kind of
    whatever may stand in a prompt. The abstaining answer belongs to all splits and is no leak.
    """
    train = splits["train"]
    evaluation = [example for name, examples in splits.items() if name != "train" for example in examples]
    leaks = [*_shared_groups(train, evaluation), *_answers_as_documents([*train, *evaluation], document_kinds)]
    asked = [example for example in evaluation if not example.abstains]
    places = _training_texts(train, training_chunks)
    texts = list(places)
    for quote in find_quotes([example.answer for example in asked], texts, threshold):
        where = places[texts[quote.text]]
        leaks.append(Leak(asked[quote.answer].id, f"{quote.share:.0%} of its answer stands in {where}"))
    return sorted(leaks, key=lambda leak: (leak.row, leak.reason))


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raises DataError naming the rows."""
    if leaks:
        shown = "".join(f"\n  {leak}" for leak in leaks[:NAMED_IN_MESSAGE])
        more = f"\n  ... and {len(leaks) - NAMED_IN_MESSAGE} more" if len(leaks) > NAMED_IN_MESSAGE else ""
        raise DataError(f"{len(leaks)} leaks between training and evaluation:{shown}{more}")


def _shared_groups(train: Sequence[Example], evaluation: Sequence[Example]) -> list[Leak]:
    groups = {example.group: example.id for example in train}
    return [
        Leak(example.id, f"its group {example.group} is also trained on ({groups[example.group]})")
        for example in evaluation
        if example.group in groups
    ]


def _answers_as_documents(examples: Sequence[Example], kinds: Mapping[str, str]) -> list[Leak]:
    return [
        Leak(example.id, f"the {kinds[document]} record {document} is among its documents")
        for example in examples
        for document in example.document_ids
        if kinds[document] in ("qa", "boundary")
    ]


def _training_texts(train: Sequence[Example], chunks: Mapping[str, str]) -> dict[str, str]:
    """Distinct text -> where it stands."""
    places: dict[str, str] = {}
    for example in train:
        if not example.abstains:
            places.setdefault(example.answer, f"the answer of {example.id}")
        places.setdefault(example.question, f"the question of {example.id}")
        for document in example.documents:
            places.setdefault(document, f"a document of {example.id}")
    for chunk_id, text in chunks.items():
        places.setdefault(text, f"chunk {chunk_id}")
    return places
