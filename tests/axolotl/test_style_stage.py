"""train_style with backend axolotl, on examples in styles and on a writer's passages: a stand-in, and the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import train_style
from stages.axolotl.environment import child_environment
from stages.axolotl.settings import Axolotl
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.schema import Lora, Model, Prompt, Training
from stages.core.workspace import Workspace
from stages.generation.loading import check_adapter, load_tokenizer, prompt_of
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer
from stages.style.examples import StyleExample

TEMPLATE = "{% for m in messages %}<s> {{ m.content }} </s>{% endfor %}{% if add_generation_prompt %}<s> {% endif %}"
PROMPT = Prompt("test", "w3 {documents}", "w4 w5", "{documents}", "{number} {text}", "w9")
SYSTEM = "w7 w8 w9"
VARIANTS = {"guide": {"data": "rag", "styles": ["socratic"]}, "verne": {"data": "style/verne"}}
NUM_EVAL = 4  # one batch: the mean over batches is then the mean over tokens


def words(number: int) -> str:
    return " ".join(f"w{(11 * number + k) % 60 + 3}" for k in range(10 + number % 5))


@pytest.fixture
def repository(tmp_path: Path, tiny_llama: Path) -> Workspace:
    """A base with a chat template, 16 examples in a style and 16 passages of a writer."""
    workspace = Workspace(tmp_path, tmp_path)
    base = workspace.write("models/base/llama")
    shutil.copytree(tiny_llama, base)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base)
    manifest = {"name": "llama", "kind": "build", "path": ".", "revision": "", "files": sha256_files(base)}
    (base / "manifest.json").write_text(json.dumps(manifest))
    for part, numbers in {"train": range(16), "validation": range(16, 16 + NUM_EVAL)}.items():
        rag = [
            Example(f"e{n}", "qa", f"w{n + 3}", words(n), [], [], "none", f"g{n}", style="socratic") for n in numbers
        ]
        write_jsonl(workspace.write(f"data/demo/rag/{part}.jsonl"), [example.to_row() for example in rag])
        passages = [StyleExample(f"v{n}", SYSTEM, f"w{n + 3}", words(n), "a.txt", 12) for n in numbers]
        write_jsonl(workspace.write(f"data/demo/style/verne/{part}.jsonl"), [p.to_row() for p in passages])
    return workspace


@pytest.fixture
def config(
    axolotl_settings: Callable[..., Axolotl], axolotl_lora: Lora, axolotl_training: Training
) -> Callable[..., train_style.Config]:
    def build(variant: str, venv: Path, **changes: Any) -> train_style.Config:
        values: dict[str, Any] = {
            "domain": "demo",
            "model": Model(name="llama", kind="build", max_context_tokens=128),
            "prompt": PROMPT,
            "seed": 13,
            "lora": axolotl_lora,
            "training": axolotl_training,
            "base": "models/base/llama",
            "backend": "axolotl",
            "axolotl": axolotl_settings(venv=str(venv), **changes),
        }
        return train_style.Config(variant=variant, **values, **VARIANTS[variant])

    return build


def adapter_of(workspace: Workspace, variant: str) -> Path:
    return workspace.outputs / f"models/demo/styles/{variant}"


@pytest.mark.parametrize("quantise", [False, True])
def test_the_note_says_how_it_was_trained_and_under_which_prompt(
    repository: Workspace,
    config: Callable[..., train_style.Config],
    fake_venv: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantise: bool,
) -> None:
    monkeypatch.setenv("FAKE_AXOLOTL", "ok")
    metrics = train_style.run(config("verne", fake_venv / ".venv-axolotl", quantise=quantise), repository)
    assert (metrics["num_train_rows"], metrics["num_eval_rows"], metrics["num_truncated_rows"]) == (16, NUM_EVAL, 0)
    adapter = adapter_of(repository, "verne")
    note = json.loads((adapter / "adapter.json").read_text())
    assert note["prompt"]["without_documents"] == SYSTEM
    assert (note["quantise"], note["base"]) == (quantise, "models/base/llama")
    assert note["versions"]["axolotl"] == "0.19.0"
    renderer = Renderer(prompt_of(note, PROMPT), load_tokenizer(repository.read("models/base/llama")))
    check_adapter(adapter, renderer.hash)
    row = read_jsonl(adapter / "axolotl/train.jsonl")[0]
    prompt = renderer.prompt_ids(renderer.messages("w3"))
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt) + 1] == [-100] * len(prompt) + row["input_ids"][len(prompt) : len(prompt) + 1]


@pytest.mark.axolotl
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stage_through_axolotl_is_the_stage_through_trl(
    repository: Workspace, config: Callable[..., train_style.Config], real_root: Path, variant: str
) -> None:
    settings = config(variant, real_root / ".venv-axolotl")
    ours = train_style.run(replace(settings, backend="trl"), repository)
    rows = train_style.run(settings, repository)
    assert rows["best_eval_loss"] == pytest.approx(ours["best_eval_loss"], rel=0.02)
    for figure in ("num_train_tokens", "num_steps", "num_train_rows", "num_trainable_parameters"):
        assert rows[figure] == ours[figure], figure
    path = adapter_of(repository, variant) / "axolotl/axolotl.yml"
    rendered = yaml.safe_load(path.read_text())
    assert rendered["base_model"] == "models/base/llama"
    if variant == "verne":  # by hand, from the repository's folder
        venv = real_root / ".venv-axolotl"
        done = subprocess.run(
            [venv / "bin/axolotl", "train", path.relative_to(repository.outputs)],
            env=child_environment(venv, "cpu", 1),
            cwd=repository.outputs,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert (repository.outputs / rendered["output_dir"] / "adapter_model.safetensors").is_file()
