"""What the models write, and what the reference answers cost them: the raw material of every number on answers.

A condition is a set of questions with the documents in their prompts. Conditions share prompts (`answers.base` and
`grounding.base.none` ask the same), so each distinct prompt is answered once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.generation.decoding import completion_losses, generate
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer, TokenisedExample

Condition = Sequence[tuple[Example, Sequence[str]]]  # questions, each with the documents in its prompt


@dataclass(frozen=True)
class Answer:
    """nll: summed negative log likelihood of the reference (nats) over its num_tokens tokens."""

    text: str
    nll: float
    num_tokens: int


def answer_conditions(
    model: Any,
    renderer: Renderer,
    conditions: Mapping[str, Condition],
    max_new_tokens: int,
    batch_size: int,
    name: str,
) -> dict[str, dict[str, Answer]]:
    """Condition -> example id -> answer. `name` is the model's, for the progress bar."""
    tokenised = {
        condition: {
            example.id: renderer.tokenise(example.question, documents, example.answer) for example, documents in rows
        }
        for condition, rows in conditions.items()
    }
    distinct = list({_key(row): row for rows in tokenised.values() for row in rows.values()}.values())
    prompts = list(dict.fromkeys(_prompt(row) for row in distinct))
    texts = generate(model, renderer.tokenizer, prompts, max_new_tokens, batch_size, f"{name}: answers")
    losses = completion_losses(model, renderer.tokenizer, distinct, batch_size, f"{name}: losses")
    written = dict(zip(prompts, texts, strict=True))
    costs = {_key(row): loss for row, loss in zip(distinct, losses, strict=True)}
    return {
        condition: {id_: Answer(written[_prompt(row)].strip(), *costs[_key(row)]) for id_, row in rows.items()}
        for condition, rows in tokenised.items()
    }


def clusters(examples: Sequence[Example]) -> list[str]:
    """The source document of each example; where it is unknown, its split group."""
    return [example.source_document or example.group or example.id for example in examples]


def _prompt(row: TokenisedExample) -> tuple[int, ...]:
    return tuple(row.input_ids[: len(row.input_ids) - row.num_completion_tokens])


def _key(row: TokenisedExample) -> tuple[tuple[int, ...], int]:
    return tuple(row.input_ids), row.num_completion_tokens
