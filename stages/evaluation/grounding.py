"""Does a model answer from the documents it is given? The same question with four sets of documents.

    gold             one telling of the evidence (a chunk, with its neighbours where these are evidence too)
    gold_distractor  the same and a similar chunk that does not hold the answer, in random order
    distractor       only the chunk that does not hold the answer
    none             the prompt without documents

A grounded model is right with gold, hardly worse beside a distractor, and wrong without gold: whoever answers
then has learned the answer by heart. Distractors are the chunks nearest to the question, so they are hard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.core.seeding import derived_random
from stages.evaluation.answers import words
from stages.knowledge.records import Chunk, Example
from stages.retrieval.documents import SEPARATOR

CONDITIONS = ("gold", "gold_distractor", "distractor", "none")

Documents = dict[str, list[str]]  # condition -> texts of the documents


def grounding_documents(
    examples: Sequence[Example], chunks: Mapping[str, Chunk], nearest: Mapping[str, Sequence[str]], seed: int
) -> dict[str, Documents]:
    """Example id -> the documents of each condition, for the questions whose evidence is known.

    nearest: example id -> ids of the chunks nearest to its question, in order. Examples that abstain, whose
    evidence lies outside `chunks`, or for which no chunk can serve as a distractor, are left out.
    """
    found = {}
    for example in examples:
        evidence = [chunks[chunk_id] for chunk_id in example.evidence if chunk_id in chunks]
        if example.abstains or not evidence:
            continue
        gold = SEPARATOR.join(chunk.text for chunk in choose_telling(evidence, seed, example.id))
        distractor = _distractor(example, gold, nearest.get(example.id, ()), chunks)
        if distractor is not None:
            both = [gold, distractor]
            derived_random(seed, "grounding order", example.id).shuffle(both)
            found[example.id] = {"gold": [gold], "gold_distractor": both, "distractor": [distractor], "none": []}
    return found


def choose_telling(evidence: Sequence[Chunk], seed: int, purpose: str) -> list[Chunk]:
    """One run of chunks that follow each other in a section, drawn from the runs that the evidence falls into."""
    runs: list[list[Chunk]] = []
    for chunk in sorted(evidence, key=lambda c: (c.kind, c.document, c.number)):
        last = runs[-1][-1] if runs else None
        if last and (last.document, last.section, last.number + 1) == (chunk.document, chunk.section, chunk.number):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return derived_random(seed, "grounding evidence", purpose).choice(runs)


def answer_words(example: Example, gold: str) -> set[str]:
    """The words of the answer that come from the gold document and not from the question: what a distractor lacks."""
    return set(words(example.answer)) & set(words(gold)) - set(words(example.question))


def _distractor(example: Example, gold: str, nearest: Sequence[str], chunks: Mapping[str, Chunk]) -> str | None:
    """The text of the first chunk that is no evidence and does not hold all the words that make the answer."""
    wanted = answer_words(example, gold)
    for chunk_id in nearest:
        if chunk_id in chunks and chunk_id not in example.evidence:
            text = chunks[chunk_id].text
            if text != gold and not (wanted and wanted <= set(words(text))):
                return text
    return None
