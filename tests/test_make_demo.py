"""The demo's raw files: sizes, traps, that every fact can be checked, and that nothing leaks by accident."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import make_demo
from stages.core.errors import ConfigError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import iterate_lines, read_jsonl
from stages.core.workspace import Workspace
from stages.knowledge.demo_domain import invent_world, tell_articles, tell_book
from stages.knowledge.demo_qa import raw_qa_lines
from stages.knowledge.demo_voice import ADVICE
from stages.knowledge.invented_words import is_reserved, split_word

CONFIG = make_demo.Config(
    domain="demo",
    raw_dir="data/demo/raw",
    seed=13,
    kind="world",
    world=make_demo.World(
        num_entities=80,
        num_qa=478,
        num_boundary_generic=128,
        num_boundary_finance=7,
        num_interviews=35,
        num_article_chunks=250,
        num_book_chunks=284,
    ),
    documents=make_demo.Documents(
        sets=["medical", "legal"],
        num_documents=5,
        num_entities=3,
        formats=["pdf", "docx", "html", "epub", "txt"],
        pairs={
            "own.csv": make_demo.Pairs("factual", "csv", 0.5),
            "own.json": make_demo.Pairs("socratic", "alpaca", 0.25),
            "own.jsonl": make_demo.Pairs("conversational", "chat", 1.0),
        },
    ),
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    make_demo.run(CONFIG, Workspace(root, root))
    return root / CONFIG.raw_dir


def chunks(raw: Path) -> dict[str, dict[str, Any]]:
    named = {}
    for kind, name in (("book", "book.jsonl"), ("article", "articles.jsonl")):
        named |= {f"{kind}-{line:04d}": row for line, row in enumerate(read_jsonl(raw / name), start=1)}
    return named


def good_rows(raw: Path) -> list[dict[str, Any]]:
    rows = [line.value for line in iterate_lines(raw / "qa.jsonl") if not line.error]
    whole = [row for row in rows if row["question"].strip() and row["answer"] and row["question"] != "Is there more?"]
    return list({row["question"]: row for row in whole}.values())


def trigrams(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return list(zip(words, words[1:], words[2:], strict=False))


def containment(answer: str, inside: set[tuple[str, ...]]) -> float:
    return sum(t in inside for t in trigrams(answer)) / len(trigrams(answer))


def names(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if is_reserved(word)]


def without_markers(answer: str) -> str:
    text = re.sub(r"\[+(EXPLANATION|INTERVENTION|ESCALATION)\b[\]\s]*", "", answer, flags=re.IGNORECASE)
    return " ".join(re.sub(r"not (required|needed)\.\s*$", "", text, flags=re.IGNORECASE).replace("]", "").split())


def test_sizes_are_those_of_the_real_thing(raw: Path) -> None:
    counts = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in raw.iterdir()}
    assert counts == {
        "qa.jsonl": 497,
        "boundary.jsonl": 135,
        "interviews.jsonl": 35,
        "articles.jsonl": 250,
        "book.jsonl": 284,
    }
    assert len(good_rows(raw)) == 478
    assert Counter(row["kind"] for row in read_jsonl(raw / "boundary.jsonl")) == {"generic": 128, "finance": 7}
    assert 478 + 35 + 250 + 284 == 1047


def test_written_twice_it_is_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    make_demo.run(CONFIG, Workspace(tmp_path, tmp_path))
    assert sha256_files(tmp_path / CONFIG.raw_dir) == sha256_files(raw)
    make_demo.run(replace(CONFIG, seed=14), Workspace(tmp_path, tmp_path))
    assert sha256_files(tmp_path / CONFIG.raw_dir) != sha256_files(raw)


def test_every_answer_states_a_fact_that_its_evidence_tells(raw: Path) -> None:
    told = chunks(raw)
    for row in good_rows(raw):
        answer = re.match(r"The (\w+) of the \w+ (\w+) is ([\w ]+)\. (.+)", without_markers(row["answer"]))
        if answer is None:
            continue  # it quotes the book
        attribute, name, value, advice = answer.groups()
        assert name == row["topic"]
        assert advice == ADVICE[attribute]
        first = told[row["evidence"][0]]["text"]
        assert name in first and value in first
        for chunk in row["evidence"]:
            assert value in told[chunk]["text"] or name in told[chunk]["text"]


def test_only_quotes_repeat_what_the_book_says(raw: Path) -> None:
    texts = [set(trigrams(chunk["text"])) for chunk in chunks(raw).values()]
    leaking = []
    for row in good_rows(raw):
        if max(containment(without_markers(row["answer"]), text) for text in texts) >= 0.8:
            leaking.append(row)
    assert len(leaking) == 4
    assert all(row["question"].startswith("What does the chronicle say") for row in leaking)


def test_markers_come_in_all_the_ways_they_go_wrong(raw: Path) -> None:
    text = (raw / "qa.jsonl").read_text(encoding="utf-8")
    for trap in ("[explanation]", "[EXPLANATION [INTERVENTION]]", "[INTERVENTION] ", "not required.", "Not needed."):
        assert trap in text
    assert re.search(r"\[EXPLANATION The", text)


def test_chunks_stand_in_chapters_and_some_need_their_predecessor(raw: Path) -> None:
    book = read_jsonl(raw / "book.jsonl")
    chapters = Counter(row["chapter"] for row in book)
    assert list(chapters.values()) == [14] * 16 + [15] * 4
    nameless = [row for row in book if not set(names(row["text"])) & set(names(row["questions"][0]))]
    assert len(book) * 0.04 < len(nameless) < len(book) * 0.2
    assert all(2 <= len(row["questions"]) <= 4 for row in book)
    assert book.index(nameless[0]) > 0


def test_every_invented_name_is_kept_for_domains(raw: Path) -> None:
    words = {word for chunk in chunks(raw).values() for word in re.findall(r"\b[A-Z]\w+", chunk["text"])}
    invented = {word for word in words if split_word(word)} - {"Here", "The", "Today"}
    assert len(invented) == 80 + 320  # names and values, all different
    assert all(is_reserved(word) for word in invented)


def test_more_questions_than_there_are_facts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_qa"):
        make_demo.run(replace(CONFIG, world=replace(CONFIG.world, num_qa=1000)), Workspace(tmp_path, tmp_path))


@settings(max_examples=60, deadline=None)
@given(
    num_entities=st.integers(4, 12),
    num_book_chunks=st.integers(0, 60),
    num_article_chunks=st.integers(0, 40),
    num_qa=st.integers(0, 90),
    seed=st.integers(0, 9),
)
def test_a_world_too_small_names_the_key(
    num_entities: int, num_book_chunks: int, num_article_chunks: int, num_qa: int, seed: int
) -> None:
    world = invent_world(seed, num_entities)
    tellings = tell_book(world, num_book_chunks) + tell_articles(world, num_article_chunks)
    try:
        lines = raw_qa_lines(world, tellings, num_qa)
    except ConfigError as error:
        assert re.match(r"make_demo\.world\.num_(book_chunks|qa): ", str(error))
        assert "num_book_chunks" not in str(error) or num_book_chunks < 4 * max(num_entities, 4)
    else:
        assert len(lines) > num_qa


SIZES = {"num_entities": 24, "num_qa": 120, "num_boundary_generic": 0, "num_boundary_finance": 0}
SIZES |= {"num_interviews": 12, "num_article_chunks": 80, "num_book_chunks": 80}


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("num_entities", 0, "0 is not between 4 and 150"),
        ("num_entities", 151, "151 is not between 4 and 150"),
        ("num_interviews", 25, "at most num_entities, 24"),
        ("num_book_chunks", -1, "-1 is less than 0"),
        ("num_boundary_finance", -1, "-1 is less than 0"),
    ],
)
def test_a_size_that_no_world_has_names_the_key_and_the_limit(key: str, value: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"make_demo.world.{key}: {said}"):
        make_demo.World(**{**SIZES, key: value})


@pytest.mark.parametrize(
    "key, value",
    [("sets", []), ("formats", []), ("num_documents", 0), ("num_entities", 0), ("num_entities", 31)],
)
def test_documents_about_nothing_or_too_much_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"make_demo.documents.*{key}"):
        replace(CONFIG.documents, **{key: value})  # type: ignore[arg-type]


def test_broken_lines_are_few_and_of_every_sort(raw: Path) -> None:
    lines = list(iterate_lines(raw / "qa.jsonl"))
    assert sum(bool(line.error) for line in lines) == 3
    whole = [json.dumps(line.value, sort_keys=True) for line in lines if not line.error]
    assert len(lines) - 478 < len(lines) * 0.05
    assert sum('"question": ""' in line or '"answer": ""' in line for line in whole) == 2


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    make_demo.run(replace(CONFIG, kind="documents"), Workspace(root, root))
    return root / CONFIG.raw_dir


def test_documents_are_real_files_of_every_format_and_tell_every_fact(documents: Path) -> None:
    from stages.documents.formats import read_document

    files = sorted((documents / "documents").rglob("*.*"))
    assert Counter(file.suffix for file in files) == {".pdf": 2, ".docx": 2, ".html": 2, ".epub": 2, ".txt": 2}
    text = {str(f.relative_to(documents)): read_document(f, 10**6).text for f in files}
    with open(documents / "pairs/own.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 * 2
    for row in rows:
        assert row["value"] in text[row["source"]]
        others = " ".join(other for name, other in text.items() if name != row["source"])
        assert row["answer"].split()[-1].rstrip(".") == row["value"] and row["value"] not in others


def test_documents_written_twice_are_the_same_bytes(documents: Path, tmp_path: Path) -> None:
    make_demo.run(replace(CONFIG, kind="documents"), Workspace(tmp_path, tmp_path))
    assert sha256_files(tmp_path / CONFIG.raw_dir) == sha256_files(documents)


def test_own_pairs_come_in_formats_and_manners(documents: Path) -> None:
    alpaca = json.loads((documents / "pairs/own.json").read_text(encoding="utf-8"))
    assert len(alpaca) == 30 and alpaca[0]["output"].startswith("Let us look together. ")
    chats = read_jsonl(documents / "pairs/own.jsonl")
    assert len(chats) == 120 and chats[0]["messages"][1]["content"].endswith("Shall we go on?")
