from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.jsonl import read_jsonl
from stages.formats.formats import NAMES
from stages.serving.convert_command import SHOWN_REJECTIONS, FormatName, convert

runner = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=Commands)
    app.command()(convert)
    app.command("other")(lambda: None)  # with one command only, its name would not be typed
    return app


def source(folder: Path, rows: list[str]) -> str:
    (folder / "qa.csv").write_text("\n".join(["question,context,answer", *rows, ""]), encoding="utf-8")
    return str(folder / "qa.csv")


def test_names_are_those_of_the_formats() -> None:
    assert set(FormatName) == set(NAMES)


def test_it_writes_and_says_what_became_of_every_record(app: typer.Typer, tmp_path: Path) -> None:
    target = tmp_path / "new" / "chat.jsonl"
    arguments = ["convert", source(tmp_path, ["Who?,Bako,Lona.", ",,No."]), str(target), "--to", "chat"]
    result = runner.invoke(app, [*arguments, "--rejected", str(tmp_path / "rejected.jsonl")])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "rejected qa.csv:3: missing_field question is missing",
        "lost context_joined: 1 times: context became the end of the question",
        "qa -> chat: 2 read, 1 kept, 1 rejected",
    ]
    assert [len(row["messages"]) for row in read_jsonl(target)] == [2]
    assert read_jsonl(tmp_path / "rejected.jsonl") == [
        {"origin": "qa.csv:3", "reason": "missing_field", "detail": "question is missing"}
    ]


def test_without_a_target_it_only_checks(app: typer.Typer, tmp_path: Path) -> None:
    path = source(tmp_path, ["Who?,,Lona.", *[",,No."] * (SHOWN_REJECTIONS + 2)])
    result = runner.invoke(app, ["convert", path])
    assert result.exit_code == 0
    assert "... and 2 more; --rejected FILE lists them all" in result.stderr
    assert result.stderr.count("rejected qa.csv:") == SHOWN_REJECTIONS
    assert [entry.name for entry in tmp_path.iterdir()] == ["qa.csv"]


def test_tool_calls_can_be_rejected(app: typer.Typer, tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    talk = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps({"messages": talk}) + "\n")
    assert runner.invoke(app, ["convert", str(path)]).exit_code == 0
    result = runner.invoke(app, ["convert", str(path), "--tool-calls", "reject"])
    assert (result.exit_code, result.stderr.splitlines()) == (
        1,
        [
            "error: talks.jsonl: no record was kept of 1 read",
            "  talks.jsonl:1: tool_calls calls weather",
        ],
    )


def test_wrong_use(app: typer.Typer, tmp_path: Path) -> None:
    path = source(tmp_path, ["Who?,,Lona."])
    assert runner.invoke(app, ["convert", path, "--to", "yaml"]).exit_code == 2
    missing = runner.invoke(app, ["convert", str(tmp_path / "none.csv")])
    assert (missing.exit_code, "none.csv: no such file" in missing.stderr) == (1, True)
