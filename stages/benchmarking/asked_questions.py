"""The test questions of a domain, which training never saw."""

from __future__ import annotations

from dataclasses import dataclass

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.knowledge.records import Example


@dataclass(frozen=True)
class AskedQuestions:
    """boundary: questions that the documents do not answer."""

    questions: list[Example]
    boundary: list[Example]


def read_questions(workspace: Workspace, domain: str, limit: int) -> AskedQuestions:
    """The first `limit` of either sort; 0: all. Raises DataError where there is no question."""
    path = workspace.read(f"data/{domain}/rag/test.jsonl")
    examples = [Example.from_row(row) for row in read_jsonl(path)]
    questions = [example for example in examples if example.kind != "boundary"]
    if not questions:
        raise DataError(f"{path}: no question to ask ({len(examples)} boundary examples)")
    return AskedQuestions(questions[: limit or None], [e for e in examples if e.kind == "boundary"][: limit or None])
