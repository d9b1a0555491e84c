"""The stage on small folders: a tokenizer with one token a word, so that sizes can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import save_word_tokenizer

from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import read_jsonl
from stages.core.workspace import ROOT, Workspace
from stages.prepare_style import Config, run
from stages.style.examples import StyleExample, read_examples

SETTINGS = yaml.safe_load((ROOT / "conf/prepare_style/default.yaml").read_text(encoding="utf-8"))
PROMPT = yaml.safe_load((ROOT / "conf/prompt/persona_en.yaml").read_text(encoding="utf-8"))
DATA, REPORT = "data/demo/style/verne", "reports/demo/prepare_style/verne"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    save_word_tokenizer(tmp_path)
    (tmp_path / "samples").mkdir()
    return Workspace(tmp_path, tmp_path)


def config(**changes: Any) -> Config:
    settings = {key: value for key, value in SETTINGS.items() if key != "variants"}
    settings |= {
        "domain": "demo",
        "language": "en",
        "samples": "samples",
        "model": {"name": "words", "kind": "build", "max_context_tokens": 4096},
        "seed": 13,
        "min_tokens": 40,
        "max_tokens": 100,
        "max_rejected_share": 0.9,
        "variant": "verne",
        "prompt": PROMPT,
        "provider": {"kind": "local"},
        "local": {"temperature": 0.7, "max_tokens": 64, "batch_size": 4},
        **changes,
    }
    return parse_section(Config, settings, "prepare_style")


def story(name: str, num_paragraphs: int, num_words: int = 45) -> str:
    """Paragraphs no two of which share a trigram."""
    return "\n\n".join(
        " ".join(["We", "saw", f"{name}{p}", *(f"{name}{p}w{n}" for n in range(num_words - 4)), "end."])
        for p in range(num_paragraphs)
    )


def test_folder_to_examples(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "samples"
    for number in range(10):
        (folder / f"{number}.txt").write_text(story(f"a{number}", 4), encoding="utf-8")
    (folder / "notes.md").write_text("# Plan\n\nTODO: all of it\n", encoding="utf-8")
    (folder / "again.md").write_text(story("a1", 4), encoding="utf-8")
    (folder / "cover.png").write_bytes(b"\x89PNG\0\0")
    (folder / "broken.txt").write_bytes(b"MZ\0\0\xff\xfe")
    (folder / "old.txt").write_bytes("Была тьма.".encode("cp1251"))
    (folder / "empty.txt").write_text(" \n")
    metrics = run(config(), workspace)
    files = metrics["files"]
    assert (files["num_read"], files["num_kept"]) == (16, 10)
    assert files["rejected"] == {"binary": 1, "empty": 2, "not_utf8": 1, "same_file": 1, "unsupported": 1}
    assert metrics["num_notes_removed"] == {"todo_line": 1}
    assert metrics["instructions"] == {"num_by_provider": 0, "num_by_rule": 20}
    assert metrics["passages"]["num_read"] == metrics["passages"]["num_kept"] == 20
    assert (metrics["num_train"], metrics["num_validation"]) == (18, 2)
    assert "0 examples of at least 500 tokens" in capsys.readouterr().err
    train, validation = (read_examples(tmp_path / DATA / f"{part}.jsonl") for part in ("train", "validation"))
    assert not {e.source for e in train} & {e.source for e in validation}
    assert {e.num_tokens for e in train} == {90}
    assert train[0].passage == "\n\n".join(story("a0", 4).split("\n\n")[:2])
    assert len({e.system for e in [*train, *validation]}) == 1
    assert len(read_jsonl(tmp_path / DATA / "rejected.jsonl")) == 6
    assert json.loads((tmp_path / DATA / "profile.json").read_text())["system_prompt"] == train[0].system
    report = (tmp_path / REPORT / "style.md").read_text(encoding="utf-8")
    assert "| words per sentence | " in report
    assert (tmp_path / REPORT / "style.png").stat().st_size > 10_000


def test_one_file_is_split_by_a_contiguous_part_and_no_neighbour_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "samples/book.txt").write_text(story("b", 60, 80), encoding="utf-8")
    metrics = run(config(), workspace)
    assert metrics["passages"]["rejected"] == {"next_to_held_out": 1}
    train, validation = (read_examples(tmp_path / DATA / f"{part}.jsonl") for part in ("train", "validation"))
    assert (len(train), len(validation)) == (53, 6)
    numbers = [int(e.passage.split()[2][1:]) for e in [*train, *validation]]
    assert numbers == [*range(53), *range(54, 60)]


def test_the_same_samples_give_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "samples/book.txt").write_text(story("b", 12), encoding="utf-8")
    run(config(), workspace)
    before = sha256_files(tmp_path / "data") | sha256_files(tmp_path / "reports")
    run(config(), workspace)
    assert sha256_files(tmp_path / "data") | sha256_files(tmp_path / "reports") == before


def test_a_passage_that_comes_again_is_dropped_and_held_out_text_is_not_in_training(
    workspace: Workspace, tmp_path: Path
) -> None:
    for number in range(12):
        (tmp_path / f"samples/{number}.txt").write_text(story(f"c{number}", 2, 80), encoding="utf-8")
    (tmp_path / "samples/reprint.md").write_text(story("c3", 1, 80) + "\n\n" + story("new", 1, 80), encoding="utf-8")
    metrics = run(config(), workspace)
    assert metrics["passages"]["rejected"] == {"duplicate": 1}
    assert metrics["passages"]["num_read"] == 26


def test_a_held_out_draft_of_what_is_trained_on_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    words = story("e", 1, 90).split()
    draft = [word if n % 4 else f"{word}x" for n, word in enumerate(words[:50])] + words[50:]  # near, but no duplicate
    for name, text in {"a.txt": f"{' '.join(words)}\n\n{story('f', 9, 90)}", "b.txt": " ".join(draft)}.items():
        (tmp_path / "samples" / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="every held-out passage stands in training"):
        run(config(), workspace)


def test_short_and_long_passages_are_rejected_with_their_place(workspace: Workspace, tmp_path: Path) -> None:
    text = f"{story('d', 5, 80)}\n\n# Two\n\n{' '.join(f'x{n}' for n in range(150))}\n\n# Three\n\nTiny."
    (tmp_path / "samples/book.md").write_text(text, encoding="utf-8")
    metrics = run(config(), workspace)
    assert metrics["passages"]["rejected"] == {"next_to_held_out": 1, "too_long": 1, "too_short": 1}
    rejected = {row["reason"]: row for row in read_jsonl(tmp_path / DATA / "rejected.jsonl")}
    assert rejected["too_long"]["origin"] == "book.md: passage 6"
    assert rejected["too_short"]["detail"] == "1 tokens"


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({}, {}, "the folder of documents is empty"),
        ({"a.txt": "Too short."}, {}, "no record was kept of 1 read"),
        ({"a.bin": "x"}, {}, "no record was kept of 1 read"),
        ({"a.txt": "x"}, {"samples": "elsewhere"}, "elsewhere: no such file or folder"),
    ],
)
def test_bad_input_is_named(
    workspace: Workspace, tmp_path: Path, files: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / "samples" / name).write_text(text)
    with pytest.raises(DataError, match=message):
        run(config(**changes), workspace)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"notes": {"mine": "("}}, "prepare_style: notes.mine: no regular expression"),
        ({"min_tokens": 60}, "half of max_tokens"),
        ({"validation_share": 1.0}, "validation_share must be between 0 and 1"),
        ({"min_token": 5}, "prepare_style.min_token: unknown key"),
        ({"instructions": "model"}, "instructions: 'model' is not one of rule, provider"),
        ({"wording": {"system": "", "user": "Write."}}, "wording.user: the placeholder {document} is missing"),
    ],
)
def test_a_bad_setting_is_refused_by_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_a_writer_without_samples_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"prepare_style\.variants\.verne\.samples"):
        run(config(samples=""), workspace)


def test_examples_are_in_the_format_chat_and_come_back(tmp_path: Path) -> None:
    from stages.formats.chat import read_chat

    example = StyleExample("verne-1", "Be Verne.", "Write.", 'He said: "Go".\n\nI went.', "a.txt", 7)
    conversation = read_chat(example.to_row())
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]
    assert StyleExample.from_row(example.to_row()) == example
    (tmp_path / "x.jsonl").write_text(json.dumps(example.to_row()) + "\n{}\n")
    with pytest.raises(DataError, match=r"x.jsonl:2: no example of prepare_style"):
        read_examples(tmp_path / "x.jsonl")
    assert asdict(example)["source"] == "a.txt"


@pytest.mark.parametrize(("name", "language", "person"), [("verne*.txt", "en", "first"), ("tolstoy*", "ru", "перв")])
def test_real_books(
    workspace: Workspace, tmp_path: Path, shared_data: Path, name: str, language: str, person: str
) -> None:
    (book,) = (shared_data / "books").glob(name)
    text = book.read_text(encoding="utf-8")[:150_000]
    (tmp_path / "samples/book.txt").write_text(text, encoding="utf-8")
    metrics = run(config(language=language, min_tokens=300, max_tokens=900, max_rejected_share=0.2), workspace)
    counts = metrics["passages"]
    assert counts["num_read"] == counts["num_kept"] + counts["num_rejected"]
    assert metrics["num_train_tokens"] + metrics["num_validation_tokens"] > 0.9 * len(text.split())
    examples = read_examples(tmp_path / DATA / "train.jsonl")
    assert person in examples[0].system
    for example in examples:
        first = example.passage.split("\n\n")[0].split()[:3]
        assert " ".join(first)[:10] in " ".join(text.split())
