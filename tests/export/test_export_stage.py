"""The stage export_model: what it leaves behind, and that it leaves nothing where something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.schema import Model, Prompt
from stages.core.workspace import Workspace
from stages.export.card import CardConfig
from stages.export.manifest import verified_export
from stages.export_model import Config, run
from stages.generation.loading import load_model, load_tokenizer
from stages.prompts.renderer import Renderer

TARGET = "models/export/demo/rag"
CARD = CardConfig(
    licences={"tiny": "apache-2.0"},
    data="reports/demo/build_rag_data/metrics.json",
    counts={"train": "splits.train.num_rows"},
    split_hash="splits_sha256",
    results="reports/demo/metrics.json",
    figures={"tuned with documents": "answers.tuned_docs"},
)


@pytest.fixture
def config(model_config: Model, prompt_config: Prompt) -> Callable[..., Config]:
    def build(**changes: Any) -> Config:
        values: dict[str, Any] = {
            "domain": "demo",
            "model": model_config,
            "prompt": prompt_config,
            "seed": 13,
            "variant": "rag",
            "adapter": "models/demo/rag_lora",
            "gguf": ["F32", "Q8_0"],
            "examples": "data/demo/rag/validation.jsonl",
            "num_golden": 4,
            "max_new_tokens": 6,
            "num_check_tokens": 300,
            "min_agreement": 0.99,
            "max_logit_difference": 1e-5,
            "max_shard_bytes": 150_000,
            "num_threads": 1,
            "card": CARD,
        }
        return Config(**(values | changes))

    return build


def test_a_whole_export(config: Callable[..., Config], repository: Workspace, prompt_config: Prompt) -> None:
    measured = run(config(), repository)
    folder = verified_export(repository.read(TARGET))
    names = set(sha256_files(folder))
    assert {
        "model-00001-of-00003.safetensors",
        "model.safetensors.index.json",
        "LICENSE",
        "chat_template.jinja",
    } <= names
    assert {"gguf/demo-rag.F32.gguf", "gguf/demo-rag.Q8_0.gguf", "gguf/Modelfile.Q8_0"} <= names
    assert {"adapter/adapter_model.safetensors", "adapter/adapter.json", "golden.jsonl", "README.md"} <= names
    assert measured["merged_into"] == "stored"
    files = ("safetensors", "demo-rag.F32.gguf", "demo-rag.Q8_0.gguf")
    safetensors, exact, narrow = (measured["files"][name] for name in files)
    assert safetensors["max_logit_difference"] <= 1e-5
    assert exact["max_logit_difference"] <= 1e-5
    assert exact["equal_answers"] == exact["num_prompts"] == 4
    assert narrow["max_logit_difference"] > 0
    assert measured == json.loads(repository.read("reports/demo/export_model/rag/metrics.json").read_text())
    card = (folder / "README.md").read_text()
    assert card.startswith('---\nlicense: apache-2.0\nbase_model: "tiny"\n')
    assert "| train | 1,234 |" in card
    assert "| tuned with documents | exact_match | 0.913 [0.708, 1.000] | 92 |" in card
    assert "| tuned with documents | loss | 0.913 no interval | 92 |" in card
    assert Renderer(prompt_config, load_tokenizer(folder)).hash in card
    assert "5" * 64 in card


def test_the_same_inputs_give_the_same_bytes(config: Callable[..., Config], repository: Workspace) -> None:
    run(config(), repository)
    first = sha256_files(repository.read(TARGET))
    run(config(), repository)
    assert sha256_files(repository.read(TARGET)) == first


def test_golden_prompts_are_answered_again(
    config: Callable[..., Config], repository: Workspace, model_config: Model
) -> None:
    from stages.generation.decoding import generate

    run(config(gguf=[]), repository)
    folder = repository.read(TARGET)
    rows = read_jsonl(folder / "golden.jsonl")
    tokenizer = load_tokenizer(folder)
    answers = generate(load_model(folder, model_config), tokenizer, [row["input_ids"] for row in rows], 6, 4)
    assert answers == [row["answer"] for row in rows]
    assert (
        tokenizer.apply_chat_template(rows[1]["messages"], tokenize=False, add_generation_prompt=True)
        == rows[1]["text"]
    )


def test_chats_are_golden_prompts_too(config: Callable[..., Config], repository: Workspace) -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    write_jsonl(repository.outputs / "chats.jsonl", [{"id": "verne-1", "messages": turns}])
    run(config(gguf=[], examples="chats.jsonl"), repository)
    (row,) = read_jsonl(repository.read(TARGET) / "golden.jsonl")
    assert row["messages"] == turns[:2]


def test_a_qlora_adapter_goes_into_the_nearer_base(
    config: Callable[..., Config], repository: Workspace, build_adapter: Callable[..., Path]
) -> None:
    build_adapter(repository.read("models/base/tiny"), "models/demo/rag_lora", quantise=True)
    measured = run(config(gguf=["F32"]), repository)
    assert measured["merged_into"] == "dequantised"
    assert set(measured["merges"]) == {"stored", "dequantised"}
    assert measured["files"]["safetensors"]["max_logit_difference"] <= 1e-5
    assert "trained on the base in 4 bits" in (repository.read(TARGET) / "README.md").read_text()


def test_adapters_alone_are_copied_as_they_are(
    config: Callable[..., Config], repository: Workspace, build_adapter: Callable[..., Path]
) -> None:
    base = repository.read("models/base/tiny")
    for seed in (13, 14):
        build_adapter(base, f"models/contracts/hybrid/by_pair/seed-{seed}")
    measured = run(config(merge=False, adapter="models/contracts/hybrid", card=CardConfig()), repository)
    folder = verified_export(repository.read(TARGET))
    assert measured["num_adapters"] == 2
    assert sha256_files(folder / "adapter") == sha256_files(repository.read("models/contracts/hybrid"))
    assert not list(folder.glob("*.safetensors"))
    assert (folder / "LICENSE").read_text() == "Do as you like."  # of the base, which binds what was trained on it


def test_the_dvc_revision_is_in_the_card(config: Callable[..., Config], repository: Workspace) -> None:
    out = {"path": "models/demo/rag_lora", "md5": "abc123.dir"}
    (repository.outputs / "dvc.lock").write_text(
        json.dumps({"stages": {"train_rag_lora": {"cmd": "python", "outs": [out]}}})
    )
    run(config(gguf=[]), repository)
    assert "- DVC: `models/demo/rag_lora` md5 `abc123.dir`" in (repository.read(TARGET) / "README.md").read_text()


def test_what_is_refused_leaves_no_export(config: Callable[..., Config], repository: Workspace) -> None:
    run(config(gguf=[]), repository)
    note = repository.read("models/demo/rag_lora") / "adapter.json"
    note.write_text(note.read_text().replace('"base_sha256": "', '"base_sha256": "0'))
    with pytest.raises(DataError, match="an adapter for another base"):
        run(config(gguf=[]), repository)
    assert not (repository.outputs / TARGET).exists()
    assert not list((repository.outputs / TARGET).parent.iterdir())


def test_another_prompt_than_the_adapter_was_trained_with_is_refused(
    config: Callable[..., Config], repository: Workspace, prompt_config: Prompt
) -> None:
    with pytest.raises(DataError, match=r"trained with prompt [0-9a-f]{12}, but the prompt in use is"):
        run(config(prompt=replace(prompt_config, without_documents="Answer well.")), repository)


def test_a_missing_tokenizer_is_refused(config: Callable[..., Config], repository: Workspace, tmp_path: Path) -> None:
    bare = repository.outputs / "models/demo/book_merged"
    shutil.copytree(repository.read("models/base/tiny"), bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DataError, match=r"book_merged: no tokenizer"):
        run(config(base="models/demo/book_merged"), repository)


def test_a_full_disk_is_said_beforehand(
    config: Callable[..., Config], repository: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(repository.outputs)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"the export needs 1 MB, 0 MB are free"):
        run(config(), repository)


def test_no_examples_and_wrong_settings_are_refused(config: Callable[..., Config], repository: Workspace) -> None:
    (repository.outputs / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty.jsonl: no examples"):
        run(config(examples="empty.jsonl"), repository)
    with pytest.raises(ConfigError, match=r"has no answers.tuned \('tuned' is not among: tuned_docs\)"):
        run(config(gguf=[], card=CardConfig(results=CARD.results, figures={"tuned": "answers.tuned"})), repository)
    settings = asdict(config())
    with pytest.raises(ConfigError, match=r"'Q9' is not one of F32, F16"):
        parse_section(Config, settings | {"gguf": ["Q9"]}, "export_model")
    with pytest.raises(ConfigError, match=r"with merge: false there must be one"):
        parse_section(Config, settings | {"merge": False, "adapter": ""}, "export_model")
