"""The questions and answers of a domain: people's own, cleaned, and generated ones."""

from __future__ import annotations

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.knowledge.records import QA


def read_qa(workspace: Workspace, domain: str) -> list[QA]:
    """Of clean/qa.jsonl, then of sft/qa.jsonl. Raises DataError where one is missing or both are empty."""
    files = [f"data/{domain}/clean/qa.jsonl", f"data/{domain}/sft/qa.jsonl"]
    rows = [QA.from_row(row) for file in files for row in read_jsonl(workspace.read(file))]
    if not rows:
        raise DataError(
            f"no question at all in {' and '.join(files)}: name a Q&A file in domain.qa, or have some written by "
            "generate_sft (conf/generate_sft: styles)"
        )
    return rows


def read_potential_questions(workspace: Workspace, domain: str) -> dict[str, list[str]]:
    """Chunk id -> generated questions that it answers, of data/<domain>/sft/questions.jsonl."""
    return {row["id"]: row["questions"] for row in read_jsonl(workspace.read(f"data/{domain}/sft/questions.jsonl"))}
