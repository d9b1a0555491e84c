from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from stages.cli import app
from stages.core.errors import DataError
from stages.knowledge.records import IndexRecord
from stages.retrieval.documents import Document
from stages.serving import commands
from stages.serving.answering import Answer, Request

ROOT = Path(__file__).resolve().parents[1]
RECORD = IndexRecord("book-1", "book", "book", "Chapter 1", 1, [], "Bako is a mill.")
runner = CliRunner()


class FakeAnswerer:
    config = SimpleNamespace(domain="world", model=SimpleNamespace(name="fake"))
    choices, sets = ("tuned", "book", "base"), ()

    def answer(self, question: str, model: str, use_documents: bool) -> Answer:
        if question == "too long":
            raise DataError("the question is too long")
        documents = [Document(RECORD, 0.25, (RECORD,))] if use_documents else []
        request = Request(question.strip(), model, documents, [1, 2, 3], num_dropped_documents=question == "crowded")
        return Answer(request, f"{model} answers", 2, 0.12345)

    def prepare(self, question: str, model: str, use_documents: bool, history: Any, document_set: str) -> Request:
        return self.answer(question, model, use_documents).request

    def stream(self, request: Request) -> list[str]:
        return [f"{request.model} ", f"says {request.question}"]

    def load(self, model: str, use_documents: bool = True) -> None:
        pass


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    calls: list[tuple[str, bool]] = []

    def load(model: str, use_documents: bool) -> FakeAnswerer:
        calls.append((model, use_documents))
        return FakeAnswerer()

    monkeypatch.setattr(commands, "_load", load)
    return calls


def test_ask_prints_the_answer_and_its_sources(loaded: list[tuple[str, bool]]) -> None:
    result = runner.invoke(app, ["ask", "Who?"])
    assert result.exit_code == 0
    assert result.stdout == "tuned answers\n[1] book: book, Chapter 1, #1, distance 0.250\n"
    assert loaded == [("tuned", True)]


def test_ask_json_is_the_whole_answer_and_nothing_else(loaded: list[tuple[str, bool]]) -> None:
    result = runner.invoke(app, ["ask", "crowded", "--json", "--model", "base"])
    assert json.loads(result.stdout) == {
        "question": "crowded",
        "answer": "base answers",
        "model": "base",
        "documents": [
            {
                "id": "book-1",
                "kind": "book",
                "document": "book",
                "section": "Chapter 1",
                "number": 1,
                "distance": 0.25,
                "text": "Bako is a mill.",
            }
        ],
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "elapsed_s": 0.123,
    }
    assert "did not fit" in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--no-lora"], ("book", True)),
        (["--no-docs"], ("tuned", False)),
        (["--no-lora", "--no-docs"], ("book", False)),
        (["--no-lora", "--model", "base"], ("base", True)),
        (["-m", "book"], ("book", True)),
    ],
)
def test_options_choose_the_model_and_documents(
    loaded: list[tuple[str, bool]], options: list[str], expected: tuple[str, bool]
) -> None:
    assert runner.invoke(app, ["ask", "Who?", *options]).exit_code == 0
    assert loaded == [expected]


def test_show_docs_shows_their_text(loaded: list[tuple[str, bool]]) -> None:
    assert "Bako is a mill." in runner.invoke(app, ["ask", "Who?", "--show-docs"]).stdout


def test_ask_reads_standard_input(loaded: list[tuple[str, bool]]) -> None:
    result = runner.invoke(app, ["ask", "-", "--json"], input="Кто основал?\n")
    assert json.loads(result.stdout)["question"] == "Кто основал?"


@pytest.mark.parametrize("arguments", [["ask", "  "], ["ask", "too long"]])
def test_our_errors_are_one_message_and_exit_code_1(loaded: list[tuple[str, bool]], arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: the question is ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["ask"], ["ask", "Who?", "--no-lora", "-m", "tuned"], ["nonsense"]],
)
def test_wrong_usage_is_exit_code_2(loaded: list[tuple[str, bool]], arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2
    assert loaded == []


def test_chat_takes_a_question_a_line_from_a_pipe(loaded: list[tuple[str, bool]]) -> None:
    result = runner.invoke(app, ["chat"], input="one\n\n/model book\ntwo\n")
    assert result.exit_code == 0
    assert "tuned says one" in result.stdout and "book says two" in result.stdout
    assert "you>" not in result.stdout


def test_a_piped_chat_with_a_failed_line_goes_on_and_ends_with_1(loaded: list[tuple[str, bool]]) -> None:
    result = runner.invoke(app, ["chat"], input="too long\ntwo\n")
    assert result.exit_code == 1
    assert "tuned says two" in result.stdout


@pytest.mark.parametrize("command", [["ask", "Who?"], ["chat"], ["predict", "x", "y"], ["report"]])
def test_missing_params_name_the_way_out(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.core.stage.PARAMS", tmp_path / "params.yaml")
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr == "error: params.yaml is missing: run `python -m stages.compose`\n"


def test_doctor_without_params_is_a_report_with_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.core.stage.PARAMS", tmp_path / "params.yaml")
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert {"group", "name", "status", "found", "fix"} == set(report["checks"][0])
    assert "problems with" in runner.invoke(app, ["doctor"]).stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from stages.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'chromadb', 'faiss', 'numpy', 'hydra'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    start_s = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start_s < 5  # 0.3 s on an idle machine
    for command in ("chat", "ask", "predict", "doctor", "report"):
        assert command in result.stdout


def groundtune(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """A test question of the demo whose answer its documents hold."""
    examples = ROOT / "data" / "demo" / "rag" / "test.jsonl"
    if not examples.exists() or not (ROOT / "models" / "demo" / "rag_lora" / "adapter.json").exists():
        pytest.skip("the demo is not built: run `dvc repro`")
    rows = [json.loads(line) for line in examples.read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = next(row for row in rows if set(row["evidence"]) & set(row["document_ids"]))
    return found


@pytest.mark.slow
def test_the_built_demo_answers_from_its_documents(demo: dict[str, Any]) -> None:
    result = groundtune("ask", demo["question"], "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["documents"] and answer["answer"]
    assert answer["prompt_tokens"] > 0 and 0 < answer["completion_tokens"] <= 256


@pytest.mark.slow
def test_the_built_demo_chats_over_a_pipe(demo: dict[str, Any]) -> None:
    lines = [
        demo["question"],
        "/docs",
        "/model base",
        demo["question"],
        "/model book",
        "/docs off",
        "Hello?",
        "/quit",
        "x",
    ]
    result = groundtune("chat", stdin="\n".join(lines))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"> {demo['question']}") == 2
    assert "base answers" in result.stdout and "book answers" in result.stdout
    assert "> x" not in result.stdout


def test_another_domain_or_task_is_composed() -> None:
    from stages.cli import _params
    from stages.core.stage import read_params

    assert _params("domain", "") == read_params()
    assert _params("domain", "counsel")["domain"]["raw_dir"] == "data/counsel/raw"
    missing = runner.invoke(app, ["kb", "list", "--domain", "nowhere"])
    assert missing.exit_code == 1 and "Could not find 'domain/nowhere'" in missing.stderr
