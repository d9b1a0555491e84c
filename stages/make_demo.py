"""Writes the raw material of a demo domain: an invented world in which every fact can be checked.

kind: world writes data/<domain>/raw/
    qa.jsonl          {"question", "answer", "topic", "evidence": ["book-0031", ...], "value"}, with markers and flaws
    boundary.jsonl    {"question", "answer", "kind": "generic" | "finance"}
    interviews.jsonl  {"question", "answer", "topic"}
    articles.jsonl    {"title", "text", "questions": [...]}
    book.jsonl        {"book", "chapter", "text", "questions": [...]}
kind: documents writes data/<domain>/raw/
    documents/<set>/  PDF, DOCX, HTML, EPUB and TXT files
    pairs/<file>      questions and answers of people's own, in a manner and a format each
and both reports/<domain>/make_demo/metrics.json.

    python -m stages.make_demo
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_bytes, write_json, write_text
from stages.core.jsonl import write_jsonl
from stages.core.schema import one_of
from stages.core.seeding import derived_random
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge.demo_documents import MANNERS, DocumentSet, own_pairs, write_set
from stages.knowledge.demo_domain import (
    MAX_ENTITIES,
    ask_interviews,
    boundary_rows,
    invent_world,
    tell_articles,
    tell_book,
)
from stages.knowledge.demo_files import PAIR_FORMATS, WRITERS, pairs_file, to_file
from stages.knowledge.demo_qa import MIN_ENTITIES, raw_qa_lines


def require_entities(key: str, value: int, least: int = 1) -> None:
    """Raises ValueError naming the key where a world cannot have so many entities."""
    if not least <= value <= MAX_ENTITIES:
        raise ValueError(f"{key}: {value} is not between {least} and {MAX_ENTITIES}")


@dataclass
class World:
    """Sizes count records that a right cleaning keeps."""

    num_entities: int = MISSING
    num_qa: int = MISSING
    num_boundary_generic: int = MISSING
    num_boundary_finance: int = MISSING
    num_interviews: int = MISSING
    num_article_chunks: int = MISSING
    num_book_chunks: int = MISSING

    def __post_init__(self) -> None:
        require_entities("make_demo.world.num_entities", self.num_entities, MIN_ENTITIES)
        if self.num_interviews > self.num_entities:
            raise ValueError(f"make_demo.world.num_interviews: at most num_entities, {self.num_entities}")
        for key, value in vars(self).items():
            if value < 0:
                raise ValueError(f"make_demo.world.{key}: {value} is less than 0")


@dataclass
class Pairs:
    """A file of own questions and answers: about this share of the facts, in one manner and one format."""

    style: str = MISSING
    format: str = MISSING
    share: float = MISSING

    def __post_init__(self) -> None:
        one_of(self.style, tuple(MANNERS), "make_demo.documents.pairs: style")
        one_of(self.format, PAIR_FORMATS, "make_demo.documents.pairs: format")
        if not 0 < self.share <= 1:
            raise ValueError(f"make_demo.documents.pairs: share: {self.share} is not above 0 and at most 1")


@dataclass
class Documents:
    """Sets of documents, each about a world of its own. pairs: file name -> what stands in it."""

    sets: list[str] = field(default_factory=list)
    num_documents: int = MISSING  # in each set
    num_entities: int = MISSING  # in each document
    formats: list[str] = field(default_factory=list)
    pairs: dict[str, Pairs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.formats:
            one_of(name, tuple(WRITERS), "make_demo.documents.formats")
        if not self.formats or not self.sets:
            raise ValueError("make_demo.documents: name at least one of sets and of formats")
        if self.num_documents < 1 or self.num_entities < 1:
            raise ValueError("make_demo.documents: num_documents and num_entities are at least 1")
        require_entities("make_demo.documents: num_documents * num_entities", self.num_documents * self.num_entities)


@dataclass
class Config:
    """Mirrors conf/make_demo; `kind` says which of the two is written."""

    domain: str = MISSING
    raw_dir: str = MISSING
    seed: int = MISSING
    kind: str = MISSING
    world: World = MISSING
    documents: Documents = MISSING

    def __post_init__(self) -> None:
        one_of(self.kind, ("world", "documents"), "make_demo.kind")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Writes the files; returns the counts it reports."""
    write = write_world if config.kind == "world" else write_documents
    metrics = write(config, workspace)
    write_json(workspace.write(f"reports/{config.domain}/make_demo/metrics.json"), metrics)
    return metrics


def write_world(config: Config, workspace: Workspace) -> dict[str, Any]:
    """A book, articles, interviews and Q&A as JSON lines."""
    sizes = config.world
    world = invent_world(config.seed, sizes.num_entities)
    book = tell_book(world, sizes.num_book_chunks)
    articles = tell_articles(world, sizes.num_article_chunks)
    interviews = ask_interviews(world, sizes.num_interviews)
    boundary = boundary_rows(config.seed, sizes.num_boundary_generic, sizes.num_boundary_finance)
    qa_lines = raw_qa_lines(world, book + articles, sizes.num_qa)

    folder = workspace.write(f"{config.raw_dir}/qa.jsonl").parent
    write_text(folder / "qa.jsonl", "".join(line + "\n" for line in qa_lines))
    write_jsonl(folder / "boundary.jsonl", boundary)
    write_jsonl(folder / "interviews.jsonl", interviews)
    write_jsonl(folder / "articles.jsonl", [telling.row for telling in articles])
    write_jsonl(folder / "book.jsonl", [telling.row for telling in book])
    return {
        "num_entities": len(world.entities),
        "num_facts": sum(len(entity.facts) for entity in world.entities),
        "num_qa_lines": len(qa_lines),
        "num_qa_to_keep": sizes.num_qa,
        "num_boundary": len(boundary),
        "num_interviews": len(interviews),
        "num_article_chunks": len(articles),
        "num_book_chunks": len(book),
        "num_continued_chunks": sum(bool(telling.predecessor) for telling in book + articles),
    }


def write_documents(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Documents as files, and own pairs about all sets together."""
    sizes = config.documents
    sets = [write_set(config.seed, name, sizes.num_documents, sizes.num_entities, sizes.formats) for name in sizes.sets]
    for manuscript in (manuscript for documents in sets for manuscript in documents.manuscripts):
        write_bytes(workspace.write(f"{config.raw_dir}/{manuscript.name}"), to_file(manuscript))
    num_pairs = {name: _write_pairs(config, workspace, name, pairs, sets) for name, pairs in sizes.pairs.items()}
    entities = [entity for documents in sets for entity in documents.world.entities]
    return {
        "num_sets": len(sets),
        "num_documents": sum(len(documents.manuscripts) for documents in sets),
        "num_entities": len(entities),
        "num_facts": sum(len(entity.facts) for entity in entities),
        "num_pairs": num_pairs,
    }


def _write_pairs(config: Config, workspace: Workspace, name: str, pairs: Pairs, sets: list[DocumentSet]) -> int:
    rows = [row for documents in sets for row in own_pairs(config.seed, documents, name, pairs.style, pairs.share)]
    derived_random(config.seed, "documents", "order", name).shuffle(rows)
    write_text(workspace.write(f"{config.raw_dir}/pairs/{name}"), pairs_file(rows, pairs.format))
    return len(rows)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
