from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.jsonl import read_jsonl
from stages.regression.pair_prompts import Neighbour
from stages.serving import predict_command
from stages.serving.predicting import Asked, Prediction

runner = CliRunner()
KNOWN = [Neighbour("It rains.", "It \x1b[31mpours.", 0.75, 1.23456, "c-1--c-2")]


class FakePredictor:
    config = SimpleNamespace(task=SimpleNamespace(json_field="correlation", decimals=2, unit=""))
    system = SimpleNamespace(seed=3)
    split = "by_contract"

    def predict(self, asked: list[Asked]) -> list[Prediction]:
        return [Prediction(pair, "ce_expected", -0.4251, -0.9, 0.1, 0.9, KNOWN, len(pair.a) // 100) for pair in asked]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of every predictor that was loaded."""
    loaded: list[dict[str, Any]] = []

    def load(settings: dict[str, Any]) -> FakePredictor:
        loaded.append(settings)
        return FakePredictor()

    monkeypatch.setattr(predict_command, "load", load)
    return loaded


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=Commands)
    section = {"recipe": "", "neighbours": None, "batch_size": 4}
    app.command("predict")(predict_command.predict_command(lambda task: {**section, "task": task}))
    app.command("other")(lambda: None)
    return app


def test_a_pair_is_answered_with_interval_and_neighbours(app: typer.Typer, settings: list[dict[str, Any]]) -> None:
    result = runner.invoke(app, ["predict", "a text", "another"])
    assert result.exit_code == 0
    assert result.stdout == (
        "correlation -0.43, 90% interval -0.90 to 0.10\n"
        "by ce_expected, seed 3, split by_contract\n"
        "[1] 0.75, distance 1.235, c-1--c-2\n"
        "    It rains.\n"
        "    It [31mpours.\n"  # without the escape character
    )
    assert settings == [{"task": "", "recipe": "", "neighbours": None, "batch_size": 4}]


def test_json_is_one_object_and_nothing_else(app: typer.Typer, settings: list[dict[str, Any]]) -> None:
    row = json.loads(runner.invoke(app, ["predict", "a text", "another", "--json"]).stdout)
    assert (row["a"], row["value"], row["low"], row["high"]) == ("a text", -0.4251, -0.9, 0.1)
    assert row["neighbours"][0]["id"] == "c-1--c-2"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--task", "sick"], {"task": "sick"}),
        (["--recipe", "ce"], {"recipe": "ce"}),
        (["--decoding", "head"], {"decoding": "head"}),
        (["--neighbours"], {"neighbours": True}),
        (["--no-neighbours"], {"neighbours": False}),
    ],
)
def test_options_change_the_settings(
    app: typer.Typer, settings: list[dict[str, Any]], options: list[str], expected: dict[str, Any]
) -> None:
    assert runner.invoke(app, ["predict", "x", "y", *options]).exit_code == 0
    assert expected.items() <= settings[0].items()


def test_shortened_texts_are_mentioned(app: typer.Typer, settings: list[dict[str, Any]]) -> None:
    assert "1 texts did not fit" in runner.invoke(app, ["predict", "x" * 100, "y"]).stderr


GOOD = ['{"a": "x", "b": "y"}', '{"a": "x", "b": "z", "id": 17}']
BAD = {
    '{"a": "x"': "broken_record",
    '{"a": "x"}': "not_text b is missing",
    '{"a": "x", "b": 5}': "not_text b is 5",
    '{"a": "x", "b": "y", "id": [1]}': "not_text id is [1]",
    '{"a": " ", "b": "y"}': "empty_text",
    '{"a": "x", "b": "X"}': "pair_with_itself",
    "[]": "broken_record expected a JSON object",
}


def test_a_file_gives_a_line_for_each_usable_row(
    app: typer.Typer, settings: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join([GOOD[0], *BAD, "", GOOD[1]]))
    arguments = ["predict", "--file", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    result = runner.invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["id"], row["b"], row["value"]) for row in rows] == [("in.jsonl:1", "y", -0.4251), ("17", "z", -0.4251)]
    *rejected, counts = result.stderr.splitlines()
    assert counts == "9 read, 2 predicted, 7 rejected"
    assert len(rejected) == len(BAD)
    for number, (line, reason) in enumerate(zip(rejected, BAD.values(), strict=True), start=2):
        assert line.startswith(f"rejected in.jsonl:{number}: {reason}")
    assert len(settings) == 1


def test_without_out_the_lines_go_to_standard_output(
    app: typer.Typer, settings: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(GOOD))
    lines = runner.invoke(app, ["predict", "--file", str(tmp_path / "in.jsonl")]).stdout.splitlines()
    assert [json.loads(line)["b"] for line in lines] == ["y", "z"]


@pytest.mark.parametrize("content", ["", "\n".join(BAD)])
def test_a_file_without_a_usable_row_is_exit_code_1_before_a_model_is_loaded(
    app: typer.Typer, settings: list[dict[str, Any]], tmp_path: Path, content: str
) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    result = runner.invoke(app, ["predict", "--file", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no record was kept" in result.stderr
    assert settings == [] and not (tmp_path / "out").exists()


def test_a_missing_file_is_named(app: typer.Typer, settings: list[dict[str, Any]]) -> None:
    result = runner.invoke(app, ["predict", "--file", "nowhere.jsonl"])
    assert (result.exit_code, result.stderr) == (1, "error: nowhere.jsonl: no such file\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["x"], ["x", "y", "--file", "f"], ["x", "--file", "f"], ["x", "y", "--out", "f"], ["--file", "f", "--json"]],
)
def test_wrong_usage_is_exit_code_2(app: typer.Typer, settings: list[dict[str, Any]], arguments: list[str]) -> None:
    assert runner.invoke(app, ["predict", *arguments]).exit_code == 2
    assert settings == []
