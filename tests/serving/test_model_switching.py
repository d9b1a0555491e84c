from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.serving import machine
from stages.serving.answering import Answerer, Config
from stages.serving.models import Models

QUESTION = "About 1?"


def said(answerer: Answerer, model: str) -> str:
    return answerer.answer(QUESTION, model).text


def test_three_models_say_three_things_and_switching_back_changes_nothing(answerer: Answerer) -> None:
    first = {model: said(answerer, model) for model in ("tuned", "book", "base")}
    again = {model: said(answerer, model) for model in ("base", "tuned", "book", "tuned")}
    assert len(set(first.values())) == 3
    assert again == first


def test_book_is_the_merged_model_as_if_no_lora_were_there(answerer: Answerer, workspace: Workspace) -> None:
    with_lora_off = said(answerer, "book")
    shutil.rmtree(workspace.outputs / "models" / "world" / "rag_lora")
    alone = Answerer(answerer.config, workspace, answerer.finder)
    assert said(alone, "book") == with_lora_off
    with pytest.raises(DataError, match=r"models/world/rag_lora.*dvc repro"):
        alone.load("tuned")


def test_tuned_and_book_share_their_weights(answerer: Answerer) -> None:
    assert answerer.models.load("tuned").network is answerer.models.load("book").network
    assert answerer.models.load("base").network is not answerer.models.load("book").network


def test_the_lora_is_back_after_an_answer_of_book_was_stopped(answerer: Answerer) -> None:
    before = said(answerer, "tuned")
    stopped = answerer.stream(answerer.prepare(QUESTION, "book"))
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert said(answerer, "tuned") == before


def test_a_lora_trained_with_another_prompt_is_refused_but_book_answers(answerer: Answerer) -> None:
    answerer.models.prompt.without_documents = "Another prompt."
    with pytest.raises(DataError, match="trained with prompt"):
        answerer.load("tuned", use_documents=False)
    assert said(answerer, "book")


def test_a_lora_that_appears_later_is_picked_up(config: Config, workspace: Workspace) -> None:
    folder = workspace.outputs / "models" / "world" / "rag_lora"
    aside = folder.rename(folder.with_name("aside"))
    models = Models(workspace, config.model, config.prompt, "world")
    models.load("book")
    aside.rename(folder)
    with models.use("tuned") as loaded:
        assert hasattr(loaded.network, "disable_adapter")


def test_changed_base_weights_are_refused(config: Config, workspace: Workspace) -> None:
    path = workspace.outputs / "models" / "base" / "random" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["model.safetensors"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="changed since"):
        Models(workspace, config.model, config.prompt, "world").load("base")


def test_missing_models_say_how_to_build_them(config: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    models = Models(Workspace(empty, empty), config.model, config.prompt, "world")
    for choice, place in [("base", "models/base/random"), ("book", "book_merged"), ("tuned", "rag_lora")]:
        with pytest.raises(DataError, match=f"{place}.*dvc repro"):
            models.load(choice)


def test_an_unknown_choice_names_the_known_ones(answerer: Answerer) -> None:
    with pytest.raises(ConfigError, match="'best' is not one of tuned, book, base"):
        answerer.models.load("best")


def test_weights_make_room_where_two_sets_do_not_fit(
    config: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(workspace, config.model, config.prompt, "world")
    monkeypatch.setattr(machine, "free_model_memory_bytes", lambda: 10**12)
    models.load("base")
    models.load("book")
    assert set(models._loaded) == {"base", "book"}
    models = Models(workspace, config.model, config.prompt, "world")
    monkeypatch.setattr(machine, "free_model_memory_bytes", lambda: 1)
    models.load("base")
    models.load("book")
    assert set(models._loaded) == {"book"}


def test_a_style_adapter_answers_in_its_own_way_on_the_same_weights(
    answerer: Answerer, config: Config, workspace: Workspace
) -> None:
    from safetensors.numpy import load_file, save_file

    models = workspace.outputs / "models" / "world"
    shutil.copytree(models / "rag_lora", models / "styles" / "loud")
    weights = models / "styles" / "loud" / "adapter_model.safetensors"
    save_file({name: -3 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    styled = Answerer(replace(config, styles=["loud"]), workspace, answerer.finder)
    first = {model: said(styled, model) for model in ("tuned", "loud", "book")}
    assert len(set(first.values())) == 3
    assert {model: said(styled, model) for model in ("book", "loud", "tuned")} == first
    assert first["tuned"] == said(answerer, "tuned")
    assert styled.models.load("loud").network is styled.models.load("book").network
    with pytest.raises(ConfigError, match=r"'quiet' is not one of tuned, book, base, loud"):
        styled.load("quiet")
