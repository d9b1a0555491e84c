"""A folder of raw material becomes a configuration that composes, and that the stages can read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from stages import clean_qa, compose
from stages.cli import Commands
from stages.core.config import parse_section
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.knowledge.records import QA
from stages.knowledge.splits import group_rows, split_groups
from stages.serving import new_command
from stages.serving.folder_survey import look_at
from stages.serving.language_guess import language_of
from stages.serving.new_domain import Wanted, cover, domain_yaml

runner = CliRunner()
PROSE = "The mill stands on the river, and it was built by the people of the valley. "


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a copy of conf/, which is composed for real."""
    root = tmp_path / "repository"
    shutil.copytree(CONF, root / "conf")
    monkeypatch.setattr(new_command, "ROOT", root)
    monkeypatch.setattr(compose, "CONF", root / "conf")
    return root


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def new(*arguments: str) -> Any:
    app = typer.Typer(cls=Commands)
    app.command()(new_command.new)
    app.command("other")(lambda: None)
    return runner.invoke(app, ["new", *arguments], env={"COLUMNS": "160"})


def put(folder: Path, name: str, content: str | bytes = PROSE) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def rows(num: int, **more: Any) -> str:
    return "".join(
        json.dumps({"question": f"Who is {n}?", "answer": f"Number {n}.", **more}) + "\n" for n in range(num)
    )


def test_a_mixed_folder(root: Path, raw: Path) -> None:
    for name in ("docs/a.pdf", "docs/deep/b.docx", "docs/c.html", "notes.md"):
        put(raw, name)
    put(raw, "pairs/qa.jsonl", rows(40))
    put(
        raw,
        "pairs/chat.json",
        json.dumps([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]),
    )
    put(raw, "interviews.csv", "Вопрос;Ответ\nКто?;Лона.\n")
    put(raw, "picture.jpg", b"\xff\xd8\xff")
    result = new("medical", "--from", str(raw), "--language", "en")
    assert result.exit_code == 0, result.output
    config = compose.compose(["domain=medical"])
    assert config.domain.raw_dir == str(raw)
    assert [dict(source) for source in config.domain.texts] == [
        {"path": "docs", "kind": "book"},
        {"path": "notes.md", "kind": "book"},
    ]
    assert [dict(source) for source in config.domain.qa] == [
        {"path": "interviews.csv", "kind": "interview", "fields": {"question": "Вопрос", "answer": "Ответ"}},
        {"path": "pairs/chat.json", "kind": "qa", "format": "sharegpt"},
        {"path": "pairs/qa.jsonl", "kind": "qa", "fields": {"question": "question", "answer": "answer"}},
    ]
    assert config.generate_sft.styles == {}
    assert (root / "data/medical/curation/.gitkeep").read_bytes() == b""
    assert "not understood: picture.jpg: .jpg: not a format that is read" in result.output
    assert result.output.splitlines()[-3:] == [
        "next:",
        "  python -m stages.compose domain=medical",
        "  dvc repro evaluate",
    ]
    section = parse_section(clean_qa.Config, config.clean_qa, "clean_qa")
    clean_qa.run(section, Workspace(root, root))
    assert len(read_jsonl(root / "data/medical/clean/qa.jsonl")) == 41  # `Hi` is shorter than a question may be


def test_documents_alone_are_one_source_and_have_their_questions_written(root: Path, raw: Path) -> None:
    for name in ("a.pdf", "b/c.epub", "b/d.pptx", "e.odt"):
        put(raw, name)
    assert new("lectures", "--from", str(raw)).exit_code == 0
    config = compose.compose(["domain=lectures"])
    assert [dict(source) for source in config.domain.texts] == [{"path": ".", "kind": "book"}]
    assert (list(config.domain.qa), list(config.generate_sft.styles)) == ([], ["factual"])
    text = (root / "conf/domain/lectures.yaml").read_text()
    assert "# - override /generate_sft/provider: ollama" in text


def test_model_and_language(root: Path, raw: Path) -> None:
    put(raw, "книга.txt", "Мельница стоит на реке, и её построили люди долины. " * 50)
    result = new("mill", "--from", str(raw), "--model", "vikhr_8b")
    assert result.exit_code == 0, result.output
    config = compose.compose(["domain=mill"])
    assert (config.domain.language, config.model.name, config.embedder.name) == ("ru", "vikhr_8b", "e5_large")
    assert config.prompt.abstain == "В документах этого нет."
    assert config.ingest.chunk_tokens == 500  # sizes for the small base are left out
    assert new("mill2", "--from", str(raw)).exit_code == 0
    small = compose.compose(["domain=mill2"])
    assert (small.embedder.name, small.retrieval.fulltext, small.ingest.chunk_tokens) == ("minilm", True, 250)


@pytest.mark.parametrize("name", ["Upper", "1st", "a b", "a/b", "../a", "", "default", "ы", "a" * 64, "-x="])
def test_bad_names_are_refused(root: Path, raw: Path, name: str) -> None:
    put(raw, "a.pdf")
    before = sorted(root.rglob("*"))
    assert new("--from", str(raw), "--", name).exit_code == 1
    assert sorted(root.rglob("*")) == before


def test_nothing_is_overwritten_unless_forced(root: Path, raw: Path) -> None:
    put(raw, "a.pdf")
    result = new("demo", "--from", str(raw))
    assert (result.exit_code, result.stderr) == (
        1,
        "error: conf/domain/demo.yaml exists; choose another name, or give --force to overwrite it\n",
    )
    assert new("mine", "--from", str(raw)).exit_code == 0
    (root / "conf/domain/mine.yaml").write_text("# changed by hand\n")
    (root / "data/mine/curation/edits.jsonl").write_text("kept\n")
    assert new("mine", "--from", str(raw)).exit_code == 1
    assert (root / "conf/domain/mine.yaml").read_text() == "# changed by hand\n"
    assert new("mine", "--from", str(raw), "--force").exit_code == 0
    assert "raw_dir" in (root / "conf/domain/mine.yaml").read_text()
    assert (root / "data/mine/curation/edits.jsonl").read_text() == "kept\n"


def test_wrong_choices_name_the_right_ones(root: Path, raw: Path, tmp_path: Path) -> None:
    put(raw, "a.pdf")
    assert (
        "--model gpt17: no such file in conf/model; there are llama3_1_8b,"
        in new("m", "--from", str(raw), "--model", "gpt17").stderr
    )
    assert "--language xx: not known; known: ar, de, el" in new("m", "--from", str(raw), "--language", "xx").stderr
    assert "none: no such folder" in new("m", "--from", str(tmp_path / "none")).stderr
    put(tmp_path / "useless", "photo.jpg", b"\xff")
    result = new("m", "--from", str(tmp_path / "useless"))
    assert "nothing that a model can learn from was recognised:\n  photo.jpg: .jpg" in result.stderr
    assert not (root / "conf/domain/m.yaml").exists()


def test_names_that_yaml_would_trip_over(root: Path, raw: Path) -> None:
    folder = raw / "a: #1 'x' \"y\" {z}"
    put(folder, "qa: [1].csv", "x,answer\n1,2\n")
    put(folder, "q&a.jsonl", json.dumps({"Question": "Wer?", " Answer ": "Lona."}) + "\n")
    put(folder, "d o\nc.pdf")
    assert new("odd", "--from", str(folder)).exit_code == 0
    config = compose.compose(["domain=odd"])
    assert config.domain.raw_dir == str(folder)
    assert dict(config.domain.qa[0]) == {"path": "q&a.jsonl", "kind": "qa", "fields": {"question": "Question", "answer": " Answer "}}  # fmt: skip
    assert {source.path for source in config.domain.texts} == {"d o\nc.pdf", "qa: [1].csv"}


def test_names_that_a_configuration_would_resolve_are_refused(root: Path, raw: Path) -> None:
    put(raw, "a ${seed}.pdf")
    put(raw, "b.csv", "question,answer ${seed}\nWho?,Lona.\n")
    put(raw, "c.csv", "question,answer,${seed}\nWho?,Lona.,1\n")
    survey = look_at(raw)
    assert [records.path for records in survey.qa] == ["c.csv"]
    assert survey.not_understood[0] == (
        "a ${seed}.pdf",
        "its name holds ${, which a configuration takes for a reference: rename it",
    )
    put(raw / "${x}", "a.pdf")
    result = new("odd", "--from", str(raw / "${x}"))
    assert (result.exit_code, "its name holds ${" in result.stderr) == (1, True)


def test_a_folder_in_the_repository_is_named_relatively(root: Path) -> None:
    put(root / "material", "a.pdf")
    assert new("mine", "--from", str(root / "material")).exit_code == 0
    assert compose.compose(["domain=mine"]).domain.raw_dir == "material"


def test_questions_alone_say_what_is_missing(root: Path, raw: Path) -> None:
    put(raw, "qa.csv", "q,a,source\nWho?,Lona.,b1\nWhy?,So.,b1\nWhen?,1204.,b2\n")
    result = new("asked", "--from", str(raw))
    assert "missing: documents; name some in domain.texts" in result.output
    config = compose.compose(["domain=asked"])
    assert config.domain.qa[0].fields == {"question": "q", "answer": "a", "source_document": "source"}
    assert list(config.domain.texts) == []


@pytest.mark.parametrize("num", range(3, 40))
def test_few_questions_leave_no_part_empty(raw: Path, num: int) -> None:
    put(raw, "qa.jsonl", rows(num))
    written = yaml.safe_load(domain_yaml("few", "raw", look_at(raw), Wanted("en")))
    shares = written["build_rag_data"].get("split") or {"train": 0.7, "validation": 0.1, "test": 0.2}
    assert abs(sum(shares.values()) - 1) < 1e-9
    groups = group_rows([QA(f"qa-{n}", "qa", f"Who is {n}?", f"Number {n}.") for n in range(num)], 0.8)
    assert len(groups) == num
    assert set(split_groups(groups, (), shares, 13).values()) == {"train", "validation", "test"}


def test_copies_and_unusable_records_are_allowed_for(raw: Path) -> None:
    put(raw, "qa.jsonl", rows(30) + rows(6) + '{"question": "", "answer": "x"}\n' * 4)
    written = yaml.safe_load(domain_yaml("few", "raw", look_at(raw), Wanted("en")))
    assert written["clean_qa"] == {"max_rejected_share": 0.3}  # a quarter
    put(raw, "qa.jsonl", rows(30))
    assert "clean_qa" not in yaml.safe_load(domain_yaml("few", "raw", look_at(raw), Wanted("en")))


def test_the_same_questions_twice_are_read_once(root: Path, raw: Path) -> None:
    put(raw, "a.jsonl", rows(30))
    put(raw, "b.csv", "question,answer\n" + "".join(f"Who is {n}?,Number {n}.\n" for n in range(30)))
    put(raw, "docs/a.md")
    assert new("twice", "--from", str(raw)).exit_code == 0
    assert [source.path for source in compose.compose(["domain=twice"]).domain.qa] == ["a.jsonl"]
    assert "the same questions as in a.jsonl: left out" in (root / "conf/domain/twice.yaml").read_text()


def test_passages_books_and_what_was_cut_from_them(root: Path, raw: Path) -> None:
    chapter = {"book": "Mill", "chapter": "I", "text": PROSE * 20}
    write_jsonl(raw / "mill.chapters.jsonl", [chapter])
    put(raw, "mill.txt", "".join(f"CHAPTER {n}\n\n{PROSE * 500}\n\n" for n in range(1, 5)))
    write_jsonl(raw / "news.jsonl", [{"title": "T", "text": "Short.", "questions": ["Why?"]}])
    assert new("mill", "--from", str(raw)).exit_code == 0
    assert [dict(source) for source in compose.compose(["domain=mill"]).domain.texts] == [
        {"path": "mill.chapters.jsonl", "kind": "book", "fields": {"document": "book", "section": "chapter", "text": "text"}},
        {"path": "news.jsonl", "kind": "article", "fields": {"document": "title", "section": "title", "text": "text", "questions": "questions"}},
    ]  # fmt: skip
    assert look_at(raw).documents[0].what == "book"


def test_pairs_with_a_number_become_a_regression_task(root: Path, raw: Path) -> None:
    for part, num in (("train", 20), ("dev", 5), ("test", 5)):
        put(raw, f"sts.{part}.csv", "id,text_a,text_b,score\n" + "".join(
            f"{n},It rains {n} times.,It pours {n} times.,{n % 5 + 0.25}\n" for n in range(num)))  # fmt: skip
    put(raw, "README.md")
    result = new("rain", "--from", str(raw))
    assert result.exit_code == 0, result.output
    task = compose.compose(["regression=rain"]).regression
    assert (task.low, task.high, task.decimals, task.split) == (0.25, 4.25, 2, "official")
    assert dict(task.files.files) == {"train": "sts.train.csv", "validation": "sts.dev.csv", "test": "sts.test.csv"}
    assert dict(task.files.fields) == {"a": "text_a", "b": "text_b", "value": "score"}
    assert not (root / "conf/domain/rain.yaml").exists()
    assert result.output.splitlines()[-2:] == [
        "  python -m stages.compose regression=rain",
        "  dvc repro evaluate_regression",
    ]


def test_texts_with_titles_and_numbers_are_no_pairs(raw: Path) -> None:
    for number, name in enumerate(("views", "year")):
        write_jsonl(
            raw / f"{name}.jsonl",
            [{"title": f"The mill {n}", "text": PROSE * 3 + str(n), name: n + number} for n in range(5)],
        )
    survey = look_at(raw)
    assert [(found.path, found.found.fields) for found in survey.texts] == [
        (f"{name}.jsonl", {"document": "title", "section": "title", "text": "text"}) for name in ("views", "year")
    ]
    assert survey.pairs == []


def test_databases_are_named_without_passwords(root: Path, raw: Path) -> None:
    with sqlite3.connect(raw / "prices.db") as database:
        database.execute("CREATE TABLE contracts (id, title)")
    put(raw, ".env", "DATABASE_URL='postgresql://ann:secret@host/markets'\n")
    result = new("market", "--from", str(raw))
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    assert (
        ".env: the URL of a postgresql database; copy conf/regression/contracts_postgresql.yaml to market"
        in result.output
    )
    assert "prices.db: a SQLite database, sqlite:///<its path>; copy conf/regression/contracts.yaml" in result.output
    assert "then: python -m stages.compose regression=market" in result.output


def test_only_a_text_that_is_nothing_else_is_a_url(raw: Path) -> None:
    put(raw, "database.txt", "mysql://ann:secret@host/markets\n")
    put(raw, "notes.txt", "See mysql://host/markets for more.")
    survey = look_at(raw)
    assert survey.databases == [("database.txt", "mysql")]
    assert [seen.path for seen in survey.documents] == ["notes.txt"]


def test_files_that_are_none_or_broken_are_told(raw: Path) -> None:
    put(raw, "broken.json", "[{]")
    put(raw, "empty.jsonl", "")
    put(raw, "wide.csv", "question,answer\nQ,A\n".encode("utf-16"))
    put(raw, "settings.json", '{"a": 1, "b": 2}')
    put(raw, "license")
    put(raw, ".hidden/x.pdf")
    put(raw, ".DS_Store")
    (raw / "circle").symlink_to(raw)
    (raw / "nowhere.pdf").symlink_to(raw / "gone")
    put(raw, os.fsdecode(b"caf\xe9.pdf"))
    os.mkfifo(raw / "pipe")
    put(raw, "good.pdf")
    survey = look_at(raw)
    assert [seen.path for seen in survey.documents] == ["good.pdf"]
    told = {path.partition(".")[0]: why for path, why in survey.not_understood}
    assert told["broken"].startswith("1: broken JSON") or "broken JSON" in told["broken"]
    assert told["empty"] == "the file is empty"
    assert "iconv -f UTF-16" in told["wide"]
    assert told["settings"] == "records have a, b"
    assert (told["circle"], told["nowhere"], told["pipe"]) == ("link", "link", "not_a_file")
    assert told["caf\\xe9"] == "its name is not UTF-8: rename it"
    assert "tells about the folder" in told["license"]


def test_documents_beside_many_tables_are_not_lost_silently(root: Path, raw: Path) -> None:
    put(raw, "qa.jsonl", rows(3))
    for number in range(205):
        put(raw, f"{number}.pdf", b"%PDF-")
    assert tuple(len(part) if isinstance(part, list) else part for part in cover(look_at(raw))) == (200, 5)
    result = new("many", "--from", str(raw), "--language", "en")
    assert "left out: 5 documents beside files of records; move them into a folder of their own" in result.output
    assert "5 more documents" in (root / "conf/domain/many.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE, "en"),
        ("Die Mühle steht am Fluss, und sie wurde von den Leuten im Tal gebaut.", "de"),
        ("Мельница стоит на реке, и её построили люди долины.", "ru"),
        ("El molino está en el río y fue construido por la gente del valle.", "es"),
        ("製粉所は川のそばにあります。", "ja"),
        ("1204 + 7", ""),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


def test_ten_thousand_files_in_seconds(raw: Path) -> None:
    for number in range(10_000):
        name, content = [("txt", PROSE), ("pdf", "%PDF-"), ("jsonl", rows(1)), ("csv", "a;b\n1;2\n")][number % 4]
        put(raw, f"d{number % 50}/{number}.{name}", content)
    start = time.perf_counter()
    survey = look_at(raw)
    assert (len(survey.documents), len(survey.qa)) == (7500, 2500)
    assert time.perf_counter() - start < 30  # 1 s on an idle machine


@pytest.mark.slow
@pytest.mark.parametrize("name", ["advice", "books", "chat", "docs", "qa", "."])
def test_real_folders_compose(root: Path, shared_data: Path, name: str) -> None:
    result = new("real", "--from", str(shared_data / name))
    assert result.exit_code == 0, result.output
    config = compose.compose(["domain=real"])
    languages = {"qa": "de"}
    assert config.domain.language == languages.get(name, "en")
    assert [source.format for source in config.domain.qa if "format" in source] == {
        "chat": ["alpaca", "chat", "chat", "sharegpt"],
        "qa": ["qa"],
        ".": ["alpaca", "chat", "chat", "sharegpt", "qa"],
    }.get(name, [])


@pytest.mark.slow
def test_real_pairs_are_those_of_the_shipped_task(root: Path, shared_data: Path) -> None:
    assert new("real", "--from", str(shared_data / "pairs")).exit_code == 0
    ours, shipped = (compose.compose([f"regression={name}"]).regression for name in ("real", "sick"))
    assert (ours.low, ours.high, ours.files.files, ours.split) == (
        shipped.low,
        shipped.high,
        shipped.files.files,
        shipped.split,
    )
    assert set(ours.files.fields.items()) <= set(shipped.files.fields.items())
