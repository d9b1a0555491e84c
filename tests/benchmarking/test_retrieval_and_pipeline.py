"""Retrieval and the whole pipeline: a domain of six chunks, an endpoint with its own search, and one without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stages.benchmarking.measuring import measure
from stages.benchmarking.settings import Config, Endpoint
from stages.core.jsonl import write_jsonl
from stages.core.workspace import Workspace
from stages.knowledge.records import Example, IndexRecord
from stages.serving.finding import DocumentFinder

NAMES = ["Bako", "Mira", "Sul", "Tovu"]
RECORDS = [
    *(
        IndexRecord(f"book-{n}", "book", name, "", 1, [f"About {n}?"], f"{name} is kept by Lona{name}.")
        for n, name in enumerate(NAMES)
    ),
    *(IndexRecord(f"qa-{n}", "qa", f"qa-{n}", "", 0, [f"About {n}?"], f"Lona{name}.") for n, name in enumerate(NAMES)),
]


class NumberEncoder:
    """Embeds `About N?` as the unit vector N, and everything else far from all of them."""

    def encode_queries(self, texts: Sequence[str]) -> Any:
        places = [int(text.split()[1].rstrip("?")) if text.startswith("About") else 7 for text in texts]
        return np.eye(8, dtype=np.float32)[places]


def load(finder: DocumentFinder) -> None:
    from stages.retrieval.index import Index
    from stages.retrieval.search import Searcher

    if finder._searcher is None:
        vectors = NumberEncoder().encode_queries([record.questions[0] for record in RECORDS])
        index = Index(RECORDS, vectors, np.arange(len(RECORDS), dtype=np.int32), vectors[:1], {})
        finder._searcher = Searcher(index, finder.retrieval, finder.workspace.cache("stores"))
        finder._encoder = NumberEncoder()


@pytest.fixture
def domain(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Four test questions, of which the third asks for what is told in another chunk, and a boundary question."""
    monkeypatch.setattr(DocumentFinder, "load", load)
    rows = [
        Example(
            f"qa-{n}",
            "qa",
            f"About {n}?",
            f"It is kept by Lona{name}.",
            [],
            [],
            "none",
            f"qa-{n}",
            name,
            [f"book-{n if n != 2 else 0}"],
            key_fact=f"Lona{name}",
        ).to_row()
        for n, name in enumerate(NAMES)
    ]
    boundary = Example("b-0", "boundary", "How are you?", "Unknown.", [], [], "none", "b-0")
    write_jsonl(workspace.write("data/world/rag/test.jsonl"), [*rows, boundary.to_row()])
    return workspace


def answer(question: str) -> list[str]:
    """Right for the first two questions, invented for the others."""
    number = int(question.split()[1].rstrip("?")) if question.startswith("About") else 9
    return ["It is kept by ", f"Lona{NAMES[number]}" if number < 2 else "Zorro Quint", "."]


def test_retrieval_in_this_process(config: Config, domain: Workspace, server: Any) -> None:
    section = measure(replace(config, only=["retrieval"]), domain).sections["retrieval"]
    (row,) = section.figures["retrieval"].values()
    assert row["recall_at_1"].value == 0.75 and row["mrr"].value == pytest.approx((3 + 1 / 2) / 4)
    assert (row["nearest_distance"].value, row["unanswered"].value, row["boundary_unanswered"].value) == (0.0, 0.0, 1.0)
    assert (row["recall_at_1"].n, row["unanswered"].n, row["boundary_unanswered"].n) == (4, 4, 1)
    assert list(section.figures["retrieval"]) == ["index, in this process"]


def test_retrieval_of_an_endpoint_leaves_the_questions_themselves_out(
    config: Config, domain: Workspace, server: Any
) -> None:
    server.documents = [
        {"id": "qa-0", "kind": "qa", "distance": 0.0, "text": ""},
        {"id": "book-1", "kind": "book", "distance": 0.5, "text": ""},
        {"id": "book-0", "kind": "book", "distance": 0.6, "text": ""},
    ]
    section = measure(replace(config, only=["retrieval"]), domain).sections["retrieval"]
    row = section.figures["retrieval"]["scripted"]
    assert row["recall_at_1"].value == 0.25 and row["recall_at_2"].value == 0.75
    assert row["nearest_distance"].value == 0.5 and row["unanswered"].value == 1.0
    asked = [body for body in server.bodies if body["path"] == "/v1/retrieve"]
    assert [body["query"] for body in asked] == ["About 0?", "About 1?", "About 2?", "About 3?", "How are you?"]
    assert {(body["domain"], body["max_distance"], body["siblings"]) for body in asked} == {("world", 2.0, 0)}


def test_two_models_of_one_server_share_its_search(config: Config, domain: Workspace, server: Any) -> None:
    server.documents = [{"id": "book-0", "kind": "book", "distance": 0.1, "text": ""}]
    endpoints = {name: Endpoint(base_url=server.url, model=name) for name in ("scripted", "other")}
    section = measure(replace(config, only=["retrieval"], endpoints=endpoints), domain).sections["retrieval"]
    assert list(section.figures["retrieval"]) == ["scripted"]
    assert sum(body["path"] == "/v1/retrieve" for body in server.bodies) == 5


def test_the_searches_of_two_servers_are_compared(
    both: Config, domain: Workspace, server: Any, second_server: Any
) -> None:
    server.documents = [{"id": "book-0", "kind": "book", "distance": 0.1, "text": ""}]
    second_server.documents = [{"id": "book-9", "kind": "book", "distance": 0.1, "text": ""}]
    section = measure(replace(both, only=["retrieval"]), domain).sections["retrieval"]
    assert section.differences["retrieval"]["recall_at_1"].difference == -0.5


def test_the_pipeline_gives_the_documents_found_and_scores_the_answers(
    config: Config, domain: Workspace, server: Any
) -> None:
    server.pieces = answer
    section = measure(replace(config, only=["pipeline"]), domain).sections["pipeline"]
    row = section.figures["retrieved here"]["scripted"]
    assert (row["found"].value, row["correct"].value, row["exact_match"].value) == (0.75, 0.5, 0.5)
    assert row["grounded"].value == 0.5  # `Zorro Quint` stands nowhere
    assert {row[f"{part}_p50_s"].n for part in ("retrieval", "first_token", "latency")} == {4}
    systems = [body["messages"][0]["content"] for body in server.bodies if body["messages"][0]["role"] == "system"]
    assert len(systems) == 4
    assert "Bako is kept by LonaBako." in systems[0] and "qa-0" not in systems[0]
    assert "as served" not in section.figures


def test_two_endpoints_answer_from_the_same_documents(
    both: Config, domain: Workspace, server: Any, second_server: Any
) -> None:
    server.pieces = answer
    section = measure(replace(both, only=["pipeline"]), domain).sections["pipeline"]
    difference = section.differences["retrieved here"]["correct"]
    assert (difference.difference, difference.n) == (-0.5, 4)  # the second one is never right
    prompts = [
        [b["messages"] for b in s.bodies if b["messages"][0]["role"] == "system"] for s in (server, second_server)
    ]
    assert prompts[0] == prompts[1]


def test_an_endpoint_that_retrieves_is_measured_as_it_serves_too(
    config: Config, domain: Workspace, server: Any
) -> None:
    server.pieces, server.documents = answer, []
    section = measure(replace(config, only=["pipeline"]), domain).sections["pipeline"]
    assert section.figures["as served"]["scripted"]["correct"].value == 0.5
    served = [body for body in server.bodies if body["rag"] == {"sources": ["book"]}]  # the questions' own are not
    assert [[m["content"] for m in body["messages"]] for body in served] == [[f"About {n}?"] for n in range(4)]


def test_documents_that_do_not_fit_are_left_out(config: Config, domain: Workspace, server: Any) -> None:
    server.models = [{"id": "scripted", "context_tokens": 30}]
    section = measure(replace(config, only=["pipeline"]), domain).sections["pipeline"]
    assert section.figures["retrieved here"]["scripted"]["correct"].n == 4
    systems = [body["messages"][0]["content"] for body in server.bodies if body["messages"][0]["role"] == "system"]
    assert systems == ["Answer."] * 4


def test_so_many_questions(config: Config, domain: Workspace, server: Any) -> None:
    config = replace(config, only=["pipeline"], pipeline=replace(config.pipeline, num_questions=2))
    assert measure(config, domain).sections["pipeline"].figures["retrieved here"]["scripted"]["correct"].n == 2
