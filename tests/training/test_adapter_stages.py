"""train_book_lora, merge_book and train_rag_lora, one after the other, on a tiny model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stages import merge_book, train_book_lora, train_rag_lora, train_style
from stages.compose import compose
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.schema import Lora, Model, Prompt, Training
from stages.core.workspace import Workspace
from stages.generation.loading import check_adapter, load_model, load_tokenizer
from stages.knowledge.knowledge_base import read_chunks, write_knowledge
from stages.prompts.renderer import Renderer
from stages.training.example_adapter import _rows, of_styles

DEMO = "models/demo"


@dataclass(frozen=True)
class Stages:
    """The three stages' configurations."""

    book: train_book_lora.Config
    merge: merge_book.Config
    rag: train_rag_lora.Config

    def run(self, workspace: Workspace) -> None:
        train_book_lora.run(self.book, workspace)
        merge_book.run(self.merge, workspace)
        train_rag_lora.run(self.rag, workspace)


@pytest.fixture(scope="module")
def stages(model_config: Model, prompt_config: Prompt) -> Stages:
    training = Training(learning_rate=0.02, num_epochs=2, batch_size=4, max_length=128, num_threads=1)
    mlp, attention = ["up_proj", "down_proj", "gate_proj"], ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"]
    return Stages(
        train_book_lora.Config("demo", model_config, 1, 0.3, Lora(r=8, alpha=16, modules=mlp), training),
        merge_book.Config("demo", model_config, 1, 0.99, {"float32": 1e-3}, 512, "5GB"),
        train_rag_lora.Config(
            "demo", model_config, prompt_config, 1, [], Lora(r=4, alpha=12, modules=attention),
            replace(training, max_length=256),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(stages: Stages, new_workspace: Callable[[], Workspace]) -> Workspace:
    """A repository in which the three stages ran."""
    workspace = new_workspace()
    stages.run(workspace)
    return workspace


@pytest.fixture
def workspace(new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A repository in which nothing ran yet."""
    yield new_workspace()


def metrics(workspace: Workspace, stage: str) -> Any:
    return json.loads((workspace.outputs / f"reports/demo/{stage}/metrics.json").read_text())


def test_a_second_clone_gets_the_same_bytes(
    done: Workspace, stages: Stages, new_workspace: Callable[[], Workspace]
) -> None:
    other = new_workspace()
    stages.run(other)
    hashes = sha256_files(done.outputs / DEMO)
    assert sha256_files(other.outputs / DEMO) == hashes
    assert {"book_lora/adapter.json", "book_merged/model.safetensors", "rag_lora/adapter_model.safetensors"} < set(
        hashes
    )
    for stage in ("train_book_lora", "merge_book", "train_rag_lora"):
        assert metrics(other, stage) == metrics(done, stage)


def test_nothing_names_a_place_or_is_hidden_from_other_users(done: Workspace) -> None:
    for file in (path for path in (done.outputs / DEMO).rglob("*") if path.is_file()):
        assert file.stat().st_mode & 0o777 == 0o644, file
        assert str(done.outputs).encode() not in file.read_bytes(), file


def test_the_book_is_learned_and_the_held_out_chapter_is_not_trained_on(done: Workspace) -> None:
    found = metrics(done, "train_book_lora")
    assert found["after"]["book_heldout"]["perplexity"] < found["before"]["book_heldout"]["perplexity"]
    assert found["after"]["book_heldout"]["bits_per_byte"] < found["before"]["book_heldout"]["bits_per_byte"]
    assert found["before"]["unrelated"]["perplexity"] == pytest.approx(262, rel=0.2)  # random weights: the vocabulary
    texts = [chunk.text for chunk in read_chunks(done.inputs / "data/demo/knowledge.sqlite")[:8]]  # chapters 0, 1
    num_tokens = len("".join(texts)) + 2 * 3 + 2 * 2  # one a byte; line ends; begin and end tokens
    assert found["num_train_tokens"] == found["num_epochs_run"] * num_tokens


def test_the_merge_says_what_it_was_made_from_and_how_near_it_is(done: Workspace) -> None:
    note = json.loads((done.outputs / DEMO / "book_merged/merge.json").read_text())
    book_note = json.loads((done.outputs / DEMO / "book_lora/adapter.json").read_text())
    assert note["base_sha256"] == book_note["base_sha256"]
    assert note["agreement"] >= 0.99 and note["max_logit_difference"] < 1e-4 and note["num_tokens"] >= 512
    assert metrics(done, "merge_book")["agreement"] == note["agreement"]


def test_the_merged_folder_is_a_whole_model_with_the_same_prompts(
    done: Workspace, prompt_config: Prompt, model_config: Model
) -> None:
    merged, base = done.outputs / DEMO / "book_merged", done.inputs / "models/base/tiny"
    hashes = {Renderer(prompt_config, load_tokenizer(folder)).hash for folder in (merged, base)}
    assert len(hashes) == 1
    assert load_model(merged, model_config).generation_config.eos_token_id is not None
    note = check_adapter(done.outputs / DEMO / "rag_lora", hashes.pop())
    assert note["data_sha256"].keys() == {"train.jsonl", "validation.jsonl"}


def test_an_adapter_is_refused_for_another_prompt(done: Workspace, prompt_config: Prompt) -> None:
    tokenizer = load_tokenizer(done.inputs / "models/base/tiny")
    other = Renderer(replace(prompt_config, without_documents="Reply."), tokenizer)
    with pytest.raises(DataError, match="trained with prompt"):
        check_adapter(done.outputs / DEMO / "rag_lora", other.hash)


def test_the_curve_is_a_plot_of_every_evaluation(done: Workspace) -> None:
    with open(done.outputs / "reports/demo/train_rag_lora/curve.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(value) > 0 for row in rows for key, value in row.items() if key != "learning_rate")
    best = metrics(done, "train_rag_lora")["best_eval_loss"]
    assert min(float(row["eval_loss"]) for row in rows) == pytest.approx(best, rel=1e-5)


def test_only_answers_are_trained_on(done: Workspace, prompt_config: Prompt) -> None:
    renderer = Renderer(prompt_config, load_tokenizer(done.inputs / "models/base/tiny"))
    row = _rows(renderer, of_styles(done.inputs / "data/demo/rag/train.jsonl", []))[1]
    trained = [i for i in row.labels if i != -100]
    assert renderer.tokenizer.decode(trained) == "Bako1 did.<|end|>"
    assert row.input_ids[: -len(trained)] == renderer.prompt_ids(
        renderer.messages("Who ground 1 sacks?", ["Bako1 ground 1 sacks."])
    )


def test_a_merge_that_is_not_exact_is_refused_and_leaves_no_model(
    done: Workspace, stages: Stages, new_workspace: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Workspace(done.inputs, new_workspace().outputs)
    older = mine.write(f"{DEMO}/book_merged")
    older.mkdir()
    original = merge_book.merge_in_place

    def careless(model: Any) -> Any:
        merged = original(model)
        merged.model.layers[0].mlp.up_proj.weight.data.mul_(1.5)
        return merged

    monkeypatch.setattr(merge_book, "merge_in_place", careless)
    with pytest.raises(DataError, match="the merged model is not base"):
        merge_book.run(stages.merge, mine)
    assert list((mine.outputs / DEMO).iterdir()) == []


def test_a_domain_without_a_book_says_so(stages: Stages, workspace: Workspace) -> None:
    knowledge = workspace.inputs / "data/demo/knowledge.sqlite"
    write_knowledge(knowledge, [], [chunk for chunk in read_chunks(knowledge) if chunk.kind != "book"])
    with pytest.raises(DataError, match="no chunk of a book"):
        train_book_lora.run(stages.book, workspace)


def test_no_training_examples_are_an_error(stages: Stages, done: Workspace, workspace: Workspace) -> None:
    write_jsonl(workspace.write("data/demo/rag/train.jsonl"), [])
    with pytest.raises(DataError, match="there is no example at all"):
        train_rag_lora.run(stages.rag, Workspace(done.inputs, workspace.outputs))


def test_a_missing_merge_says_how_to_get_it(stages: Stages, workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"book_merged: .*dvc repro"):
        train_rag_lora.run(stages.rag, workspace)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_book_lora.held_out_share=0", "held_out_share must be above 0 and below 1"),
        ("train_book_lora.held_out_share=1", "held_out_share must be above 0 and below 1"),
        ("~merge_book.max_logit_difference.float32", "max_logit_difference: no value for float32"),
        ("merge_book.num_check_tokens=1", "num_check_tokens must be at least 2"),
    ],
)
def test_a_config_that_cannot_work_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override])


def test_stages_do_not_import_torch_before_they_run() -> None:
    import subprocess
    import sys

    code = (
        "import sys, stages.train_rag_lora, stages.train_book_lora, stages.merge_book\n"
        "assert not {'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])


def test_a_style_adapter_learns_the_examples_of_its_style_only(stages: Stages, done: Workspace, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        rows = read_jsonl(done.inputs / f"data/demo/rag/{name}.jsonl")
        styled = [{**row, "style": "socratic" if n % 2 else ""} for n, row in enumerate(rows)]
        write_jsonl(tmp_path / f"data/demo/rag/{name}.jsonl", styled)
    shared = {name: getattr(stages.rag, name) for name in ("domain", "model", "prompt", "seed", "lora", "training")}
    base = f"{DEMO}/book_merged"
    config = train_style.Config(**shared, styles=["socratic"], variant="guide", data="rag", base=base)
    workspace = Workspace(done.inputs, tmp_path)
    metrics = train_style.run(config, workspace)
    assert (metrics["num_train_rows"], metrics["num_eval_rows"]) == (4, 1)
    assert json.loads((tmp_path / "reports/demo/train_style/guide/metrics.json").read_text()) == metrics
    note = check_adapter(
        tmp_path / f"{DEMO}/styles/guide",
        Renderer(stages.rag.prompt, load_tokenizer(done.inputs / f"{DEMO}/book_merged")).hash,
    )
    assert note["base_sha256"] == json.loads((done.inputs / f"{DEMO}/rag_lora/adapter.json").read_text())["base_sha256"]
    with pytest.raises(DataError, match=r'no example in the style formal; there is "", socratic'):
        train_style.run(replace(config, styles=["formal"]), workspace)
    for changes, message in [
        ({"styles": []}, r"variants.guide.styles: name the styles"),
        ({"data": "style/verne"}, r"variants.guide: style/verne has one style"),
        ({"data": "", "styles": []}, r"variants.guide.data: '' is neither rag"),
        ({"data": "style/", "styles": []}, r"variants.guide.data: 'style/' is neither rag"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(config, **changes)
