"""The stage around its parts: nothing to do, its settings, its reviews, its command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import generate_sft
from stages.compose import compose
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.workspace import ROOT, Workspace
from stages.generate_sft import Config, run, take_preview
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import QA, Chunk
from stages.synthetic import writers
from stages.synthetic.drafts import Draft
from stages.synthetic.plan import POTENTIAL_QUESTIONS

CHUNKS = [
    Chunk(f"book-{n:04d}", "book", f"d{n % 2}", "", n, f"The mill Bako{n} was founded by Lona.") for n in range(6)
]


def settings(*overrides: str) -> Config:
    """As conf/ composes them, for a server that nobody asks."""
    section = compose(["generate_sft/provider=ollama", *overrides]).generate_sft
    return parse_section(Config, section, "generate_sft")


@pytest.fixture(scope="module")
def factual() -> Config:
    config = settings("generate_sft/styles=[factual]", "generate_sft.pairs_per_chunk=1", "generate_sft.language=en")
    return replace(config, domain="mills", curation_dir="curation")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_knowledge(tmp_path / "data/mills/knowledge.sqlite", [], CHUNKS)
    return Workspace(tmp_path, tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tasks that were asked for; each pair is answered rightly."""
    tasks: list[Any] = []

    def write(config: Config, given: Any, workspace: Workspace) -> tuple[list[Draft], writers.Usage]:
        tasks.extend(given)
        return [draft for task in given for draft in _drafts(task)], writers.Usage(len(given), 10, 1)

    monkeypatch.setattr(writers, "write", write)
    return tasks


def _drafts(task: Any) -> list[Draft]:
    name = task.chunk.text.split()[2]
    answer = "" if task.style == POTENTIAL_QUESTIONS else f"Lona founded the mill {name}."
    question = f"Who founded the mill {name}?"
    return [Draft(task.chunk, task.style, n, question, answer) for n in range(1, task.count + 1)]


def sft(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    return read_jsonl(workspace.outputs / f"data/mills/sft/{name}.jsonl")


def metrics(workspace: Workspace) -> dict[str, Any]:
    path = workspace.outputs / "reports/mills/generate_sft/metrics.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_without_styles_empty_files_are_written_in_no_time(tmp_path: Path) -> None:
    """No model, no knowledge base and no library of either is needed."""
    code = (
        "import sys, time; start = time.process_time()\n"
        "from pathlib import Path\n"
        "from stages.core.workspace import Workspace\n"
        "from stages.core.config import parse_section\n"
        "from stages.generate_sft import Config, run\n"
        "import json; folder = Path(sys.argv[1])\n"
        "run(parse_section(Config, json.loads(sys.argv[2]), 'generate_sft'), Workspace(folder, folder))\n"
        "heavy = {'torch', 'transformers', 'openai', 'numpy'} & set(sys.modules)\n"
        "print(json.dumps([time.process_time() - start, sorted(heavy)]))"
    )
    from omegaconf import OmegaConf

    section = OmegaConf.to_container(compose(["generate_sft/styles=[]", "domain=demo"]).generate_sft, resolve=True)
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps(section)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    cpu_s, heavy = json.loads(done.stdout)
    assert heavy == []
    assert cpu_s < 1
    assert sorted(path.name for path in (tmp_path / "data/demo/sft").iterdir()) == [
        *("orphaned_reviews.jsonl", "pairs.jsonl", "qa.jsonl", "questions.jsonl", "rejected.jsonl"),
    ]
    assert {path.stat().st_size for path in (tmp_path / "data/demo/sft").iterdir()} == {0}


def test_pairs_are_handed_on_as_qa(factual: Config, workspace: Workspace, asked: list[Any]) -> None:
    run(replace(factual, limit=4, potential_questions=2), workspace)
    rows = [QA.from_row(row) for row in sft(workspace, "qa")]
    assert len(rows) == 4
    assert {(row.kind, row.style, row.id[:4]) for row in rows} == {("qa", "factual", "sft-")}
    chunks = {chunk.id: chunk for chunk in CHUNKS}
    assert all(chunks[row.evidence[0]].document == row.source_document for row in rows)
    assert sorted(row.source_document for row in rows) == ["d0", "d0", "d1", "d1"]
    assert {row["model"] for row in sft(workspace, "pairs")} == {factual.provider.model}
    assert [len(row["questions"]) for row in sft(workspace, "questions")] == [1] * 6
    found = metrics(workspace)
    assert (found["num_requested"], found["num_kept"], found["rejected"]) == (4 + 12, 4 + 6, {"near_duplicate": 6})
    assert found["styles"]["factual"] == {"num_requested": 4, "num_kept": 4}
    assert found["num_taken"] == 4


def test_reviews_decide_and_outlive_a_rerun(
    factual: Config, workspace: Workspace, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(factual, workspace)
    ids = [row["id"] for row in sft(workspace, "pairs")]
    decisions = [
        {"pair": ids[0], "state": "rejected"},
        {"pair": ids[0], "state": "accepted", "note": "after all"},
        {"pair": ids[1], "state": "edited", "question": "Who?", "answer": "Lona."},
        {"pair": ids[2], "state": "rejected"},
        {"pair": "sft-gone", "state": "accepted", "at": "2026-01-01T00:00:00Z"},
    ]
    write_jsonl(workspace.inputs / "curation/reviews.jsonl", decisions)
    run(factual, workspace)
    assert [row["state"] for row in sft(workspace, "pairs")[:4]] == ["accepted", "edited", "rejected", "proposed"]
    assert [row["id"] for row in sft(workspace, "qa")] == [ids[0], ids[1], *ids[3:]]
    assert sft(workspace, "pairs")[1]["original"]["question"].startswith("Who founded the mill")
    assert sft(workspace, "qa")[1]["question"] == "Who?"
    assert [row["pair"] for row in sft(workspace, "orphaned_reviews")] == ["sft-gone"]
    assert metrics(workspace)["num_orphaned_reviews"] == 1
    assert "1 reviews are about pairs that are no longer written (sft-gone)" in capsys.readouterr().err
    run(replace(factual, take="accepted"), workspace)
    assert [row["id"] for row in sft(workspace, "qa")] == ids[:2]


def test_nothing_accepted_yet_is_said(
    factual: Config, workspace: Workspace, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(factual, take="accepted"), workspace)
    assert sft(workspace, "qa") == []
    assert len(sft(workspace, "pairs")) == 6
    assert "`groundtune sft review` decides" in capsys.readouterr().err


def test_nothing_kept_is_an_error_that_shows_why(factual: Config, workspace: Workspace, asked: list[Any]) -> None:
    strict = replace(factual.filters, min_answer_chars=1000, max_answer_chars=2000)
    with pytest.raises(DataError, match=r"no record was kept of 6 read(.|\n)*too_short answer"):
        run(replace(factual, filters=strict), workspace)
    assert len(sft(workspace, "rejected")) == 6  # to look into
    assert sft(workspace, "qa") == []


def test_a_broken_review_is_named_by_its_line(factual: Config, workspace: Workspace, asked: list[Any]) -> None:
    path = workspace.write("curation/reviews.jsonl")
    for line in ('{"pair": "a"}', '{"pair": "a", "state": "edited"}', "[]", '{"pair": 1, "state": "accepted"}'):
        path.write_text('{"pair": "b", "state": "accepted"}\n' + line, encoding="utf-8")
        with pytest.raises(DataError, match=r"curation/reviews.jsonl:2: no review"):
            run(factual, workspace)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["generate_sft/styles=[multiple_choice]", "generate_sft/provider=local"],
            "multiple_choice needs a model that",
        ),
        (["generate_sft.take=all"], "take: 'all' is not one of accepted, passed"),
        (["generate_sft.provider.base_url=localhost"], "provider.base_url: give the server's URL"),
        (["generate_sft.provider.base_url=http://me:secret@host/v1"], "no user, password or query"),
        (["+generate_sft.provider.key=sk"], "generate_sft.provider.key: unknown key"),
        (["generate_sft.filters.min_grounded_share=2"], "min_grounded_share: between 0 and 1"),
        (["+generate_sft.styles.own={instruction: x, form: poem}"], "form: 'poem' is not one of pair, choice"),
        (["+generate_sft.styles.own={}"], "generate_sft.styles.own.instruction: value is missing"),
        (["generate_sft/styles=[factual,dreamy]"], "generate_sft/styles/dreamy"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("generate_sft.method=continue_chat", *overrides)


def test_a_key_in_place_of_its_name_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError, match="give the name of an environment variable") as raised:
        settings("+generate_sft.provider.api_key_env=sk-secret")
    assert "secret" not in str(raised.value)


def test_an_unknown_language_is_refused(factual: Config, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"generate_sft.language: 'tlh' is not known; known: ar, de"):
        run(replace(factual, language="tlh"), workspace)


def test_preview_is_taken_off_the_command_line() -> None:
    arguments = ["stage", "--preview", "5", "generate_sft.limit=3"]
    assert take_preview(arguments) == 5
    assert arguments == ["stage", "generate_sft.limit=3"]
    assert take_preview(arguments) == 0
    for wrong in (["stage", "--preview"], ["stage", "--preview", "many"], ["stage", "--preview", "0"]):
        with pytest.raises(SystemExit, match="--preview needs a number"):
            take_preview(wrong)


def test_a_preview_reads_params_and_writes_nothing(
    factual: Config,
    workspace: Workspace,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import asdict

    monkeypatch.setattr("stages.core.stage.load_section", lambda name: asdict(factual))
    monkeypatch.setattr("stages.core.stage.Workspace", lambda: workspace)
    monkeypatch.setattr("stages.core.stage.die_with_parent", lambda: None)
    monkeypatch.setattr("stages.core.stage.end_in_one_line", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["generate_sft", "--preview", "2"])
    generate_sft.main()
    assert len(asked) == 2
    assert capsys.readouterr().out.count("Answer: Lona founded the mill Bako") == 2
    assert not (workspace.outputs / "data/mills/sft").exists()
