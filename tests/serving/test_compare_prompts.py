from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.workspace import Workspace
from stages.serving.compare_prompts import AskedPrompt, read_author, read_prompts, spread
from stages.style.examples import StyleExample


def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("One?\n\nTwo {braces}.\n")
    ledger = Ledger("p")
    prompts = read_prompts(tmp_path / "p.txt", ledger)
    assert [(prompt.origin, prompt.text) for prompt in prompts] == [("p.txt:1", "One?"), ("p.txt:3", "Two {braces}.")]


def test_rows_and_what_is_rejected(tmp_path: Path) -> None:
    rows = [
        {"prompt": "A"},
        {"question": "B"},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "C"}, {"role": "assistant", "content": " D"}]},
        {"prompt": 7},
        {"messages": [{"role": "robot", "content": "C"}]},
        {"messages": [{"role": "assistant", "content": "C"}]},
        {"prompt": "  "},
        {"messages": []},
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    ledger = Ledger("p")
    prompts = read_prompts(tmp_path / "p.jsonl", ledger)
    assert [(prompt.text, prompt.reference) for prompt in prompts] == [("A", ""), ("B", ""), ("C", " D")]
    assert [(r["origin"][-1], r["reason"]) for r in ledger.rejections] == [
        ("4", "no_prompt"), ("5", "no_prompt"), ("6", "empty_prompt"), ("7", "empty_prompt"), ("8", "empty_prompt"),
        ("9", "broken_record"),
    ]  # fmt: skip
    assert ledger.num_read == 9


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file of prompts"):
        read_prompts(tmp_path / "nothing.txt", Ledger("p"))


def write_writer(root: Path, name: str) -> None:
    for part in ("train", "validation"):
        rows = [StyleExample(f"{name}-{n}", "S", "U", f"{name} {part} {n}", "a.txt", 3).to_row() for n in range(3)]
        write_jsonl(root / f"data/world/style/{name}/{part}.jsonl", rows)


def test_the_author_and_the_others(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    assert read_author(workspace, "world", "", []) is None
    write_writer(tmp_path, "verne")
    only = read_author(workspace, "world", "", [])
    assert only is not None and (only.name, only.others) == ("verne", {})
    write_writer(tmp_path, "tolstoy")
    with pytest.raises(DataError, match="--author tolstoy or verne"):
        read_author(workspace, "world", "", [])
    author = read_author(workspace, "world", "verne", [])
    assert author is not None
    assert author.training[0] == "verne train 0"
    assert author.all_others == [f"tolstoy validation {n}" for n in range(3)]
    (tmp_path / "other.txt").write_text("x" * 3001)
    author = read_author(workspace, "world", "verne", [str(tmp_path / "other.txt")])
    assert author is not None and [len(text) for text in author.all_others] == [3000, 1]
    with pytest.raises(DataError, match="--author dumas: not one of tolstoy, verne"):
        read_author(workspace, "world", "dumas", [])
    with pytest.raises(DataError, match="--other dumas: neither a writer"):
        read_author(workspace, "world", "verne", ["dumas"])


def test_spread_keeps_order_and_ends() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), 0) == spread(range(3), 9) == [0, 1, 2]
    assert AskedPrompt("p:1", ({"role": "user", "content": "x"},)).text == "x"
