"""Writes the raw material of the demo domain: an invented world in which every fact can be checked.

Reads nothing. Writes data/demo/raw/:
    qa.jsonl          {"question", "answer", "topic", "evidence": ["book-0031", ...], "value"}, with markers and flaws
    boundary.jsonl    {"question", "answer", "kind": "generic" | "finance"}
    interviews.jsonl  {"question", "answer", "topic"}
    articles.jsonl    {"title", "text", "questions": [...]}
    book.jsonl        {"book", "chapter", "text", "questions": [...]}
and reports/demo/make_demo/metrics.json.

    python -m stages.make_demo
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json, write_text
from stages.core.jsonl import write_jsonl
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge.demo_domain import ask_interviews, boundary_rows, invent_world, tell_articles, tell_book
from stages.knowledge.demo_qa import raw_qa_lines


@dataclass
class Config:
    """Sizes count records that a right cleaning keeps."""

    domain: str = MISSING
    raw_dir: str = MISSING
    seed: int = MISSING
    num_entities: int = MISSING
    num_qa: int = MISSING
    num_boundary_generic: int = MISSING
    num_boundary_finance: int = MISSING
    num_interviews: int = MISSING
    num_article_chunks: int = MISSING
    num_book_chunks: int = MISSING


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Writes the five files; returns the counts it reports."""
    world = invent_world(config.seed, config.num_entities)
    book = tell_book(world, config.num_book_chunks)
    articles = tell_articles(world, config.num_article_chunks)
    interviews = ask_interviews(world, config.num_interviews)
    boundary = boundary_rows(config.seed, config.num_boundary_generic, config.num_boundary_finance)
    qa_lines = raw_qa_lines(world, book + articles, config.num_qa)

    folder = workspace.write(f"{config.raw_dir}/qa.jsonl").parent
    write_text(folder / "qa.jsonl", "".join(line + "\n" for line in qa_lines))
    write_jsonl(folder / "boundary.jsonl", boundary)
    write_jsonl(folder / "interviews.jsonl", interviews)
    write_jsonl(folder / "articles.jsonl", [telling.row for telling in articles])
    write_jsonl(folder / "book.jsonl", [telling.row for telling in book])

    metrics = {
        "num_entities": len(world.entities),
        "num_facts": sum(len(entity.facts) for entity in world.entities),
        "num_qa_lines": len(qa_lines),
        "num_qa_to_keep": config.num_qa,
        "num_boundary": len(boundary),
        "num_interviews": len(interviews),
        "num_article_chunks": len(articles),
        "num_book_chunks": len(book),
        "num_continued_chunks": sum(bool(telling.predecessor) for telling in book + articles),
    }
    write_json(workspace.write(f"reports/{config.domain}/make_demo/metrics.json"), metrics)
    return metrics


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
