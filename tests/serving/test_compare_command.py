"""The command over random models: files, page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stages.cli import Commands
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.workspace import Workspace
from stages.generation.loading import load_tokenizer
from stages.prompts.renderer import Renderer
from stages.serving.answering import Config
from stages.serving.compare_command import FILES, compare_command
from stages.serving.compare_measures import Measures, measure
from stages.serving.compare_models import ModelRun
from stages.serving.compare_page import page
from stages.serving.compare_prompts import AskedPrompt
from stages.serving.compare_show import markdown
from stages.style.examples import StyleExample
from stages.training.lora import weights_sha256

runner = CliRunner()


@pytest.fixture
def app(workspace: Workspace, config: Config) -> typer.Typer:
    from omegaconf import OmegaConf

    app = typer.Typer(cls=Commands)

    def values(domain: str) -> dict[str, Any]:
        return {"chat": OmegaConf.to_container(OmegaConf.structured(config)), "seed": 13}

    app.command("compare")(compare_command(values, workspace))
    app.command("other")(lambda: None)  # with one command only, its name would not be typed
    return app


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    (tmp_path / "prompts.txt").write_text("Who?\nWhy?\n<|end|> forged\nHow?\n")
    return str(tmp_path / "prompts.txt")


def write_writer(root: Path, name: str) -> None:
    for part in ("train", "validation"):
        rows = [
            StyleExample(f"{name}-{n}", "Be.", f"Write {n}.", f"{name} wrote {part} number {n}.", "a.txt", 5).to_row()
            for n in range(6)
        ]
        write_jsonl(root / f"data/world/style/{name}/{part}.jsonl", rows)


def test_models_side_by_side(app: typer.Typer, prompts: str, tmp_path: Path) -> None:
    for name in ("verne", "tolstoy"):
        write_writer(tmp_path, name)
    arguments = ["compare", "base", "book", "tuned", "--prompts", prompts, "--author", "verne"]
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "4 prompts read, 4 kept, 0 rejected" in result.stderr
    assert "repetition" in result.stdout
    rows = read_jsonl(tmp_path / "out" / FILES[0])
    assert list(rows[0]["answers"]) == ["base", "book", "tuned"]
    assert rows[0]["messages"] == [{"role": "user", "content": "Who?"}]
    found = json.loads((tmp_path / "out" / FILES[1]).read_text())
    assert found["system_prompts"] == dict.fromkeys(("base", "book", "tuned"), "Answer.")
    metrics = found["models"]
    assert metrics["base"]["own_loss"]["n"] == 6
    assert {"own_gain", "other_gain", "own_less_other", "copying"} <= set(metrics["tuned"])
    before = {name: (tmp_path / "out" / name).read_bytes() for name in FILES}
    again = runner.invoke(app, [*arguments, "--out", str(tmp_path / "again")])
    assert again.exit_code == 0
    assert {name: (tmp_path / "again" / name).read_bytes() for name in FILES} == before


def test_the_authors_own_prompts_are_taken_where_none_are_given(app: typer.Typer, tmp_path: Path) -> None:
    write_writer(tmp_path, "verne")
    result = runner.invoke(app, ["compare", "base", "book", "--limit", "2"])
    assert result.exit_code == 0, result.output
    rows = read_jsonl(tmp_path / "runs/compare/world" / FILES[0])
    assert [row["messages"][1]["content"] for row in rows] == ["Write 0.", "Write 3."]


def test_folders_of_models_and_adapters(app: typer.Typer, prompts: str, workspace: Workspace, tmp_path: Path) -> None:
    merged = workspace.inputs / "models/world/book_merged"
    adapter = tmp_path / "adapter"
    shutil.copytree(workspace.inputs / "models/world/rag_lora", adapter)
    note = json.loads((adapter / "adapter.json").read_text()) | {"base_sha256": weights_sha256(merged)}
    (adapter / "adapter.json").write_text(json.dumps(note))
    result = runner.invoke(app, ["compare", "book", str(merged), "tuned", str(adapter), "--prompts", prompts])
    assert result.exit_code == 0, result.output
    for row in read_jsonl(tmp_path / "runs/compare/world" / FILES[0]):
        book, copy, tuned, by_path = row["answers"].values()
        assert (book, tuned) == (copy, by_path)
    (adapter / "adapter.json").write_text(json.dumps(note | {"prompt_hash": "another"}))
    result = runner.invoke(app, ["compare", "book", str(adapter), "--prompts", prompts])
    assert result.exit_code == 1
    assert "trained with prompt another, but the prompt in use is" in result.stderr


def test_a_model_that_knows_no_chat_is_asked_in_plain_text(
    app: typer.Typer, prompts: str, workspace: Workspace, tmp_path: Path
) -> None:
    shutil.copytree(workspace.inputs / "models/world/book_merged", tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink()
    result = runner.invoke(app, ["compare", "book", str(tmp_path / "bare"), "--prompts", prompts])
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs/compare/world"
    (note,) = [n for n in json.loads((out / FILES[1]).read_text())["notes"] if "plain" in n]
    assert note.endswith("bare has no chat template and was asked in plain text")
    for row in read_jsonl(out / FILES[0]):
        book, bare = row["answers"].values()
        assert book != bare


def write_own_adapter(workspace: Workspace, config: Config, base: str) -> Path:
    """models/world/styles/verne: an adapter trained under a prompt of its own."""
    models = workspace.outputs / "models"
    adapter = models / "world/styles/verne"
    shutil.copytree(models / "world/rag_lora", adapter)
    prompt = replace(config.prompt, name="verne", without_documents="Be verne.")
    note = {
        "base_sha256": weights_sha256(workspace.outputs / base),
        "base": base,
        "prompt_hash": Renderer(prompt, load_tokenizer(workspace.outputs / base)).hash,
        "prompt": asdict(prompt),
    }
    (adapter / "adapter.json").write_text(json.dumps(note))
    return adapter


@pytest.mark.parametrize("base", ["models/base/random", "models/world/book_merged"])
def test_an_adapter_with_its_own_prompt_is_asked_under_it_by_name_and_by_path(
    app: typer.Typer, prompts: str, workspace: Workspace, config: Config, tmp_path: Path, base: str
) -> None:
    adapter = write_own_adapter(workspace, config, base)
    config.styles.append("verne")
    result = runner.invoke(app, ["compare", "base", "verne", str(adapter), "--prompts", prompts])
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs/compare/world"
    systems = json.loads((out / FILES[1]).read_text())["system_prompts"]
    assert systems == {"base": "Answer.", "verne": "Be verne.", str(adapter): "Be verne."}
    for row in read_jsonl(out / FILES[0]):
        untuned, by_name, by_path = row["answers"].values()
        assert by_name == by_path != untuned
    write_writer(tmp_path, "verne")  # whose examples say: Be.
    result = runner.invoke(app, ["compare", "base", "verne"])
    assert result.exit_code == 1
    assert "validation.jsonl:1: another system message than the one of verne" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["base"], 2, "at least two models"),
        (["base", "base"], 1, "named twice"),
        (["base", "nobody"], 1, "nobody: neither one of tuned, book, base nor a folder"),
        (["base", "book", "--max-new-tokens", "500"], 1, "prompts.txt:1: a prompt of"),
        (["base", "EMPTY"], 1, "neither config.json nor adapter_config.json"),
        (["base", "FOREIGN"], 1, "trained on another base"),
    ],
)
def test_what_is_refused(
    app: typer.Typer, prompts: str, workspace: Workspace, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    shutil.copytree(workspace.inputs / "models/world/rag_lora", tmp_path / "FOREIGN")
    named = [str(tmp_path / name) if name.isupper() else name for name in arguments]
    result = runner.invoke(app, ["compare", *named, "--prompts", prompts])
    assert result.exit_code == code
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


def test_without_prompts_and_author_there_is_nothing_to_ask(app: typer.Typer) -> None:
    result = runner.invoke(app, ["compare", "base", "book"])
    assert result.exit_code == 1
    assert "give --prompts FILE" in result.stderr


EVIL = "</script><script>alert(1)</script><!-- | `x` [a](b) \x1b[31m"


class Elements(HTMLParser):
    """Names of all elements, their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and data.strip():
            self.scripts.append(data)


def compared(*answers: str) -> tuple[list[AskedPrompt], list[ModelRun], Measures]:
    prompts = [AskedPrompt(f"p:{n}", ({"role": "user", "content": f"{EVIL} {n}"},)) for n in range(20)]
    runs = [ModelRun(f"m{n}", [answer] * 20, [], []) for n, answer in enumerate(answers)]
    return prompts, runs, measure(runs, prompts, None, 13)


def data_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Elements(text).scripts[0])
    return found


def test_no_answer_can_break_the_page_and_nothing_is_loaded() -> None:
    text = page(*compared(EVIL, "b"), seed=13)
    elements = Elements(text)
    assert elements.names.count("script") == 2
    assert elements.links == []
    assert "default-src 'none'" in text
    assert data_of(text)["prompts"][0]["answers"] == [EVIL, "b"]


def test_every_pair_is_asked_once_in_a_drawn_order_and_equal_answers_never() -> None:
    data = data_of(page(*compared("a", "b", "b"), seed=13))
    assert sorted((p, *sorted(models)) for p, *models in data["pairs"]) == [
        (p, 0, other) for p in range(20) for other in (1, 2)
    ]
    assert 8 < sum(left == 0 for _, left, _ in data["pairs"]) < 32
    assert data == data_of(page(*compared("a", "b", "b"), seed=13))
    assert data["key"] != data_of(page(*compared("a", "b", "c"), seed=13))["key"]


def test_markdown_stays_a_table_whatever_is_in_it() -> None:
    lines = markdown(*compared(EVIL, "")).splitlines()
    rows = [line for line in lines if line.startswith("| &#60;")]
    assert len(rows) == 20
    assert {row.count("|") for row in rows} == {4}
    assert "*(empty)*" in rows[0]
