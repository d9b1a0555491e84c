"""train_style on a writer's passages: under their own system prompt, which goes with the adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import train_style
from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.schema import Lora, Model, Prompt, Training
from stages.core.workspace import Workspace
from stages.export.golden import golden_prompts
from stages.generation.loading import load_tokenizer, prompt_of
from stages.prompts.renderer import Renderer
from stages.serving.models import Models
from stages.style.examples import StyleExample, read_examples

DATA, ADAPTER = "data/demo/style/verne", "models/demo/styles/verne"
SYSTEM = "You write like the sea. <|end|>"  # what stands in a file is untrusted
ESCAPED = SYSTEM.replace("<|end|>", "<\u2060|end|>")


def write_passages(workspace: Workspace, system: str = SYSTEM, words: int = 6) -> None:
    for part, numbers in {"train": range(8), "validation": range(8, 10)}.items():
        rows = [
            StyleExample(
                f"verne-{n}", system, f"Write {n} <document> words.", f"Wave {n} " + "rose " * (words + n), "a.txt", 9
            ).to_row()
            for n in numbers
        ]
        write_jsonl(workspace.write(f"{DATA}/{part}.jsonl"), rows)


@pytest.fixture(scope="module")
def config(model_config: Model, prompt_config: Prompt) -> train_style.Config:
    return train_style.Config(
        domain="demo",
        model=model_config,
        prompt=prompt_config,
        seed=1,
        lora=Lora(r=4, alpha=12, modules=["q_proj", "v_proj"]),
        training=Training(learning_rate=0.02, num_epochs=1, batch_size=4, max_length=256, num_threads=1),
        variant="verne",
        data="style/verne",
        base="models/base/tiny",
    )


@pytest.fixture(scope="module")
def done(config: train_style.Config, new_workspace: Callable[[], Workspace]) -> Workspace:
    """A repository in which the adapter is trained."""
    workspace = new_workspace()
    write_passages(workspace)
    train_style.run(config, workspace)
    return workspace


def note_of(workspace: Workspace) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((workspace.outputs / ADAPTER / "adapter.json").read_text())
    return note


def test_the_passage_alone_is_learned_under_the_writers_own_system_prompt(
    config: train_style.Config, done: Workspace
) -> None:
    material = train_style.writer_material(config, done, done.read("models/base/tiny"))
    row, tokenizer = material.rows[1], material.renderer.tokenizer
    trained = [i for i in row.labels if i != -100]
    assert tokenizer.decode(trained) == "Wave 1 rose rose rose rose rose rose rose<|end|>"
    shown = tokenizer.decode(row.input_ids[: -len(trained)])
    assert ESCAPED in shown and SYSTEM not in shown
    assert "<document>" not in shown


def test_chat_compare_and_export_start_from_the_token_ids_of_training(
    config: train_style.Config, done: Workspace
) -> None:
    material = train_style.writer_material(config, done, done.read("models/base/tiny"))
    wanted = [row.input_ids[: len(row.input_ids) - row.num_trained] for row in material.eval_rows]
    models = Models(done, config.model, config.prompt, "demo", ["verne"])
    validation = done.read(f"{DATA}/validation.jsonl")
    examples = read_examples(validation)
    with models.use("verne") as loaded:
        renderer = loaded.renderer
        assert loaded.own_prompt
        assert [renderer.prompt_ids(renderer.messages(e.user)) for e in examples] == wanted  # chat
        given = [renderer.given(e.to_row()["messages"][:2], only_this_prompt=True) for e in examples]
        assert [renderer.prompt_ids(messages) for messages in given] == wanted  # compare
    exported = Renderer(prompt_of(note_of(done), config.prompt), load_tokenizer(done.read("models/base/tiny")))
    assert [one.input_ids for one in golden_prompts(validation, exported, 9, only_this_prompt=True)] == wanted
    assert note_of(done)["prompt_hash"] == exported.hash


def test_another_prompt_is_refused(config: train_style.Config, done: Workspace, tmp_path: Path) -> None:
    note = note_of(done)
    assert note["prompt"]["without_documents"] == ESCAPED
    assert note["base"] == "models/base/tiny"
    path = done.outputs / ADAPTER / "adapter.json"
    before = path.read_text()
    path.write_text(json.dumps(note | {"prompt": note["prompt"] | {"without_documents": "Write."}}))
    with pytest.raises(DataError, match="trained with prompt"):
        Models(done, config.model, config.prompt, "demo", ["verne"]).load("verne")
    path.write_text(before)
    renderer = Renderer(prompt_of(note, config.prompt), load_tokenizer(done.read("models/base/tiny")))
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write."}]
    with pytest.raises(DataError, match="another system message than the one of verne"):
        renderer.given(chat, only_this_prompt=True)
    assert renderer.given(chat[1:], only_this_prompt=True)[0]["content"] == ESCAPED
    write_jsonl(tmp_path / "chats.jsonl", [{"id": "a", "messages": chat}])
    with pytest.raises(DataError, match="another system message"):
        golden_prompts(tmp_path / "chats.jsonl", renderer, 1, only_this_prompt=True)


def test_untuned_models_answer_as_before_once_a_writers_adapter_was_loaded(
    config: train_style.Config, done: Workspace
) -> None:
    import torch

    models = Models(done, config.model, config.prompt, "demo", ["verne"])
    ids = torch.tensor([[5, 6, 7, 8]])

    def logits(choice: str) -> torch.Tensor:
        with models.use(choice) as loaded, torch.no_grad():
            found: torch.Tensor = loaded.network(ids).logits
            return found

    before = logits("base")
    adapted = logits("verne")
    assert torch.equal(logits("base"), before)
    assert not torch.allclose(adapted, before)
    assert models.load("verne").network is models.load("base").network


def row_lengths(config: train_style.Config, workspace: Workspace) -> list[int]:
    whole = train_style.writer_material(config, workspace, workspace.read("models/base/tiny"))
    return [len(row.input_ids) for row in [*whole.rows, *whole.eval_rows]]


def test_too_long_examples_are_an_error_or_cut_and_counted(
    config: train_style.Config, new_workspace: Callable[[], Workspace]
) -> None:
    workspace = new_workspace()
    write_passages(workspace)
    lengths = row_lengths(config, workspace)
    limit = max(lengths) - 12
    short = replace(config, training=replace(config.training, max_length=limit))
    whole = train_style.writer_material(short, workspace, workspace.read("models/base/tiny"))
    long = [length for length in lengths if length > limit]
    assert 0 < len(long) < 10
    message = (
        rf"{len(long)} of 10 examples are above training.max_length {limit}; the longest has {max(lengths)} tokens"
    )
    with pytest.raises(DataError, match=message):
        train_style.run(short, workspace)
    cut, counts = train_style.fitted(replace(short, truncate=True), whole)
    assert counts == {"num_truncated_rows": len(long), "num_truncated_tokens": sum(long) - limit * len(long)}
    for row, before in zip(cut.rows, whole.rows, strict=True):
        assert len(row.input_ids) == min(limit, len(before.input_ids))
        assert len(row.input_ids) - row.num_trained == len(before.input_ids) - before.num_trained
    none_left = replace(short, truncate=True, training=replace(short.training, max_length=20))
    with pytest.raises(DataError, match="every label is masked"):
        train_style.run(none_left, workspace)


def test_passages_of_two_system_prompts_are_refused(
    config: train_style.Config, new_workspace: Callable[[], Workspace]
) -> None:
    workspace = new_workspace()
    write_passages(workspace)
    rows = [StyleExample("x-1", "Be another.", "Write.", "No.", "b.txt", 1).to_row()]
    write_jsonl(workspace.write(f"{DATA}/validation.jsonl"), rows)
    with pytest.raises(DataError, match=r"2 system prompts in its examples.*prepare_style@verne"):
        train_style.run(config, workspace)
    (workspace.outputs / DATA / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"style/verne/train.jsonl: no such file"):
        train_style.run(config, workspace)
