"""Registered versions, talked to and compared: random models, exported and loaded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.serving.answering import Answerer, Config
from stages.serving.compare_models import check_names, opened
from stages.serving.models import Models
from stages.serving.releasing import register

QUESTION = "About 1?"


@pytest.fixture
def released(built_models: Path, repository: Workspace, rebuild: Callable[..., None]) -> Workspace:
    """A version that is the random book model, beside the models as the pipeline leaves them."""
    shutil.copytree(built_models / "models/world/book_merged", repository.inputs / "weights", dirs_exist_ok=True)
    rebuild()
    register("rag", repository, "world")
    shutil.rmtree(repository.inputs / "models/world/rag_lora")  # no real one
    shutil.copytree(built_models / "models/world/book_merged", repository.inputs / "models/world/book_merged")
    shutil.rmtree(repository.inputs / "models/base/random")
    shutil.copytree(built_models / "models/base/random", repository.inputs / "models/base/random")
    return repository


@pytest.fixture
def models(config: Config, released: Workspace) -> Models:
    return Models(released, config.model, config.prompt, config.domain)


def test_a_version_answers_as_the_model_that_was_exported(config: Config, released: Workspace, models: Models) -> None:
    answerer = Answerer(config, released, models=models)
    said = {
        name: answerer.answer(QUESTION, name, use_documents=False).text for name in ("book", "tuned@v1.0.0", "base")
    }
    assert said["tuned@v1.0.0"] == said["book"] != said["base"]
    assert models.load("tuned@v1.0.0") is models.load("tuned@v1.0.0")  # read once


def test_a_version_keeps_its_own_prompt(config: Config, released: Workspace) -> None:
    today = replace(config.prompt, without_documents="Another prompt.")
    models = Models(released, config.model, today, config.domain)
    assert models.load("rag@latest").renderer.system([]) == "Answer."
    assert models.load("book").renderer.system([]) == "Another prompt."


def test_versions_are_compared_by_name(models: Models) -> None:
    check_names(models, ["base", "tuned@v1.0.0", "world-rag@v1.0.0"])
    with pytest.raises(ConfigError, match=r"tuned@v3.0.0: no such version; there is world-rag@v1.0.0"):
        check_names(models, ["base", "tuned@v3.0.0"])
    with pytest.raises(ConfigError, match=r"nope: neither one of"):
        check_names(models, ["nope"])
    with opened(models, "tuned@v1.0.0") as loaded:
        assert loaded.network.config.hidden_size == 32


def test_an_export_is_verified_before_it_is_compared(models: Models, released: Workspace) -> None:
    folder = released.inputs / "models/export/world/rag"
    with opened(models, str(folder)):
        pass
    tokenizer = folder / "tokenizer_config.json"
    text = tokenizer.read_text()
    tokenizer.unlink()
    tokenizer.write_text(text + " ")
    with pytest.raises(DataError, match=r"tokenizer_config.json was changed"), opened(models, str(folder)):
        pass


def test_adapters_alone_answer_nothing(config: Config, repository: Workspace, rebuild: Callable[..., None]) -> None:
    shutil.rmtree(repository.inputs / "weights")
    (repository.inputs / "weights").mkdir()
    (repository.inputs / "weights/LICENSE").write_text("Do as you like.")
    rebuild()
    register("rag", repository, "world")
    models = Models(repository, config.model, config.prompt, config.domain)
    with pytest.raises(DataError, match=r"world-rag@v1.0.0: adapters only"):
        models.load("tuned@v1.0.0")
