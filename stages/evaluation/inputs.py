"""What an evaluation starts from: the questions, the chunks, and texts for the models to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.evaluation.answers import words
from stages.evaluation.style_adapters import TUNED, Manner, manners_of
from stages.generation.perplexity import unrelated_texts
from stages.knowledge.book import section_texts, split_book
from stages.knowledge.knowledge_base import read_chunks
from stages.knowledge.records import SPLITS, Chunk, Example


@dataclass(frozen=True)
class Inputs:
    """questions, boundary: of the test split. trained_answers: of the training split, what the persona sounds like.

    searched: the questions of all splits. None of them is in what retrieval searches, and nothing is trained to find
    them, so the ablation of retrieval may use them all.
    texts: what the models predict: `unrelated`, by topic, and `book_heldout`, by section, as in training.
    manners: of the tuned model and of every style adapter, where there are any.
    """

    questions: list[Example]
    searched: list[Example]
    boundary: list[Example]
    trained_answers: list[str]
    chunks: dict[str, Chunk]
    trained_chunks: list[Chunk]
    texts: dict[str, list[str]]
    manners: dict[str, Manner] = field(default_factory=dict)


def read_inputs(
    workspace: Workspace,
    domain: str,
    held_out_share: float,
    limit: int = 0,
    styles: Sequence[str] = (),
    adapters: Mapping[str, Sequence[str]] | None = None,
) -> Inputs:
    """limit: the first so many questions, and boundary examples; 0: all. styles: of the answers that the tuned model
    has learned; none given: all. adapters: style adapter -> its styles.

    Raises DataError where a file is missing or there is no test question.
    """
    folder = workspace.read(f"data/{domain}/rag")
    parts = {name: [Example.from_row(row) for row in read_jsonl(folder / f"{name}.jsonl")] for name in SPLITS}
    tuned_parts = {name: [e for e in part if e.is_of(styles) or e.kind == "boundary"] for name, part in parts.items()}
    train, test = tuned_parts["train"], tuned_parts["test"]
    questions = [example for example in test if example.kind != "boundary"]
    searched = [example for part in tuned_parts.values() for example in part if example.kind != "boundary"]
    if not questions:
        raise DataError(f"{folder / 'test.jsonl'}: no question to evaluate ({len(test)} boundary examples)")
    chunks = read_chunks(workspace.read(f"data/{domain}/knowledge.sqlite"))
    trained, held_out = split_book(chunks, held_out_share)
    texts = {"unrelated": unrelated_texts()}
    if held_out:
        texts["book_heldout"] = section_texts(held_out)
    return Inputs(
        questions[: limit or None],
        questions[:limit] if limit else searched,
        [example for example in test if example.kind == "boundary"][: limit or None],
        [example.answer for example in train if not example.abstains],
        {chunk.id: chunk for chunk in chunks},
        trained,
        texts,
        manners_of(parts, {TUNED: styles, **adapters}, limit) if adapters else {},
    )


def unrelated_answers(answers: Sequence[str]) -> list[str]:
    """Unrelated text cut into one piece for each answer, as many words long as it is."""
    stock = cycle(word for text in unrelated_texts() for word in words(text))
    return [" ".join(islice(stock, max(1, len(words(answer))))) for answer in answers]
