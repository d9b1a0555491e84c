"""`groundtune sft`: what a person decides is kept, shown at once, and in force after the next run of the stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from stages.cli import Commands
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk
from stages.serving.sft_command import sft_app
from stages.synthetic.reviews import Pair


def pair(number: int, style: str = "factual") -> Pair:
    return Pair(f"sft-{number}", "proposed", style, f"Question {number}?", f"Answer {number}.", "book-1", "d", "m", "h")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    write_knowledge(
        tmp_path / "data/mills/knowledge.sqlite", [], [Chunk("book-1", "book", "d", "", 1, "A \x1b[31mmill.")]
    )
    write_jsonl(tmp_path / "data/mills/sft/pairs.jsonl", [asdict(p) for p in (pair(1), pair(2), pair(3, "socratic"))])
    return tmp_path / "data/mills/curation/reviews.jsonl"


@pytest.fixture
def call(tmp_path: Path, reviews: Path):  # type: ignore[no-untyped-def]
    app = typer.Typer(cls=Commands)
    params = {"domain": {"name": "mills", "curation_dir": "data/mills/curation"}}
    app.add_typer(sft_app(lambda domain: params, Workspace(tmp_path, tmp_path)), name="sft")
    app.command("other")(lambda: None)

    def invoke(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, ["sft", *arguments], input=typed)

    return invoke


def test_decisions_are_listed_at_once(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("accept", "sft-1", "sft-3", "--note", "good").exit_code == 0
    assert call("reject", "sft-2").exit_code == 0
    assert call("edit", "sft-1", "--answer", " Better. ").exit_code == 0
    rows = read_jsonl(reviews)
    assert [(row["pair"], row["state"]) for row in rows] == [
        ("sft-1", "accepted"),
        ("sft-3", "accepted"),
        ("sft-2", "rejected"),
        ("sft-1", "edited"),
    ]
    assert rows[-1]["question"] == "Question 1?"
    assert rows[-1]["answer"] == "Better."
    assert "question" not in rows[0]
    listed = json.loads(call("list", "--json").stdout)
    assert listed["counts"] == {"pairs": 3, "proposed": 0, "accepted": 1, "edited": 1, "rejected": 1}
    assert [p["id"] for p in json.loads(call("list", "--state", "accepted", "--json").stdout)["pairs"]] == ["sft-3"]
    assert "As written: Question 1? | Answer 1." in call("show", "sft-1").stdout


def test_an_edit_of_an_edit_keeps_what_the_model_wrote(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    call("edit", "sft-1", "--answer", "Better.")
    call("edit", "sft-1", "--question", "Really?")
    shown = json.loads(call("show", "sft-1", "--json").stdout)
    assert (shown["question"], shown["answer"]) == ("Really?", "Better.")
    assert shown["original"] == {"question": "Question 1?", "answer": "Answer 1."}


def test_a_review_session_keeps_every_decision_and_ends(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    result = call("review", typed="x\na\ne\nNew question?\n\nq\n")
    assert result.exit_code == 0
    assert "2 decided of 3" in result.stderr
    assert [(r["pair"], r["state"], r.get("question"), r.get("answer")) for r in read_jsonl(reviews)] == [
        ("sft-1", "accepted", None, None),
        ("sft-2", "edited", "New question?", "Answer 2."),
    ]
    assert "\x1b" not in result.stdout  # a chunk may hold control characters
    assert call("review", typed="s\n").exit_code == 0  # the input ends after the one that is left
    assert len(read_jsonl(reviews)) == 2


def test_a_decision_may_be_taken_back_or_be_about_one_style(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("review", "--style", "socratic", typed="r\n").exit_code == 0
    assert call("review", "--state", "rejected", typed="a\n").exit_code == 0
    assert json.loads(call("list", "--json").stdout)["counts"]["accepted"] == 1


def test_an_unknown_id_writes_nothing(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    result = call("accept", "sft-1", "sft-9")
    assert result.exit_code == 1
    assert "sft-9: no pair has this id" in result.stderr
    assert not reviews.exists()
    assert call("edit", "sft-1").exit_code == 2
    assert "reject it" in call("edit", "sft-1", "--answer", " ").stderr


def test_orphaned_and_broken_reviews_are_told(call, reviews: Path) -> None:  # type: ignore[no-untyped-def]
    reviews.parent.mkdir(parents=True)
    reviews.write_text('{"pair": "sft-0", "state": "accepted", "at": "2026-01-01T00:00:00Z", "note": ""}\n')
    assert "orphaned: sft-0 was accepted (2026-01-01T00:00:00Z)" in call("list").stdout
    reviews.write_text('{"pair": "sft-1", "state": "liked"}\n')
    assert "reviews.jsonl:1: no review: state is one of" in call("list").stderr
