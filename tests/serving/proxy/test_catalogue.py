"""What a server starts with, refuses to start with, and takes over while it runs."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Embedder
from stages.core.stage import read_params
from stages.generation.loading import load_tokenizer
from stages.knowledge.records import IndexRecord
from stages.prompts.renderer import Renderer
from stages.retrieval.index import Index
from stages.serving.proxy.service import Service
from stages.serving.proxy.settings import name_for_clients

pytestmark = pytest.mark.anyio


def start(service: Service) -> None:
    async def once() -> None:
        try:
            await service.start()
        finally:
            await service.close()

    asyncio.run(once())


async def start_and_list(service: Service) -> list[str]:
    try:
        await service.start()
        return list(service.catalogue.entries)
    finally:
        await service.close()


def test_a_domain_without_an_index(make_settings: Any, config: Any, workspace: Any) -> None:
    config.embedder = Embedder(**read_params()["embedder"])
    with pytest.raises(DataError, match="data/world/index"):
        start(Service(make_settings(), lambda name: asdict(config), None, workspace))


def test_an_index_of_another_embedder(make_settings: Any, config: Any, workspace: Any) -> None:
    config.embedder = Embedder(**read_params()["embedder"])
    vectors = np.eye(1, 384, dtype=np.float32)
    record = IndexRecord("book-1", "book", "book", "", 1, [], "Text.")
    folder = workspace.write("data/world/index/manifest.json").parent
    Index([record], vectors, np.zeros(1, dtype=np.int32), vectors[:0], {}).write(
        folder, {"embedder": "another", "embedder_fingerprint": "0" * 64}
    )
    with pytest.raises(DataError, match="built with embedder another"):
        start(Service(make_settings(), lambda name: asdict(config), None, workspace))


def test_an_adapter_of_another_template(make_service: Any, workspace: Any) -> None:
    note = workspace.read("models/world/rag_lora/adapter.json")
    note.write_text(json.dumps({"base_sha256": "", "prompt_hash": "0" * 64}))
    with pytest.raises(DataError, match="trained with prompt 000000000000"):
        start(make_service())


async def test_a_writers_adapter_is_served_under_its_own_prompt_and_without_documents(
    make_service: Any, config: Any, workspace: Any
) -> None:
    own = replace(config.prompt, name="writer", without_documents="Write as I do.")
    folder = workspace.outputs / "models/world/styles/writer"
    shutil.copytree(workspace.read("models/world/rag_lora"), folder)
    renderer = Renderer(own, load_tokenizer(workspace.read("models/world/book_merged")))
    note = {"base_sha256": "", "prompt_hash": renderer.hash, "prompt": asdict(own)}
    (folder / "adapter.json").write_text(json.dumps(note))
    config.styles = ["writer"]
    service = make_service(models={name: {"upstream": "local", "model": name} for name in ("tuned", "writer")})
    try:
        await service.start()
        entries = service.catalogue.entries
    finally:
        await service.close()
    assert {name: (entry.renderer.hash == renderer.hash, entry.documents) for name, entry in entries.items()} == {
        "tuned": (False, True),
        "writer": (True, False),
    }


def test_an_export_of_another_template(make_service: Any, workspace: Any) -> None:
    export = workspace.write("models/export/world/rag")
    shutil.copytree(workspace.read("models/base/random"), export)
    models = {"remote": {"upstream": "server", "files": "models/export/world/rag"}}
    start(make_service(models=models))
    (export / "adapter").mkdir()
    (export / "adapter" / "adapter.json").write_text(json.dumps({"base_sha256": "", "prompt_hash": "0" * 64}))
    with pytest.raises(DataError, match="trained with prompt 000000000000"):
        start(make_service(models=models))


def test_models_that_are_not_there(make_service: Any) -> None:
    with pytest.raises(DataError, match=r"serve.models.x.model: 'nothing' is not one of tuned, book, base"):
        start(make_service(models={"x": {"upstream": "local", "model": "nothing"}}))
    with pytest.raises(DataError, match="models/elsewhere"):
        start(make_service(models={"x": {"upstream": "server", "files": "models/elsewhere"}}))


async def test_without_a_list_everything_that_is_there_is_served(
    make_service: Any, workspace: Any, caplog: Any
) -> None:
    assert await start_and_list(make_service(models={})) == ["tuned", "book", "base"]
    shutil.rmtree(workspace.read("models/world/rag_lora"))
    with caplog.at_level(logging.WARNING):
        assert await start_and_list(make_service(models={})) == ["book", "base"]
    assert "not served: tuned" in caplog.text


async def test_a_domain_that_is_served_without_documents(run_proxy: Any, request_of: Any) -> None:
    """Nothing of an index is read, and who asks for one is told."""
    models = {"plain": {"upstream": "server", "documents": False}}
    async with run_proxy(models=models) as proxy:
        answer = await proxy.ask(model="plain")
        refused = await proxy.client.post("/v1/retrieve", json={"query": "x"})
        assert (await proxy.client.get("/stats")).json()["chunks"] == {"world": 0}
    assert answer.json()["sources"] == []
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_index")


async def test_a_version_that_nobody_registered(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        for name in ("world@v1.0.0", "tuned@latest", "@", "x@y@z"):
            response = await proxy.ask(model=name)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"x y": {"upstream": "local"}}}, "cannot be a model's name"),
        ({"models": {"x": {"upstream": "nowhere"}}}, "models.x.upstream"),
        ({"models": {"x": {"upstream": "local", "domain": "moon"}}}, "models.x.domain"),
        ({"models": {"x": {"upstream": "local", "files": "f"}}}, "models.x.files"),
        ({"server": {"base_url": "ftp://x"}}, "base_url"),
        ({"server": {"base_url": "http://user:secret@x/v1"}}, "no user, password"),
        ({"server": {"api_key_env": "sk-this-is-the-key"}}, "api_key_env: give the name"),
        ({"server": {"kind": "magic"}}, "kind"),
        ({"server": {"prefix_cache_bytes": -1}}, "prefix_cache_bytes must be at least 0"),
        ({"client_system": "obey"}, "client_system"),
        ({"domains": []}, "domains"),
        ({"limits": {"max_top_k": 0}}, "limits.max_top_k"),
        ({"limits": {"max_everything": 1}}, "max_everything"),
        ({"port": 70_000}, "port"),
    ],
)
def test_settings_that_do_not_go_together(make_settings: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_settings(**changes)
    assert "secret" not in str(error.value) and "sk-this" not in str(error.value)


@pytest.mark.parametrize(
    ("upstream_model", "name"),
    [
        ("demo-rag", "demo-rag"),
        ("org/Model-8B:latest", "org/Model-8B:latest"),
        ("/srv/models/demo-rag", "demo-rag"),
        ("/srv/my models/rag.gguf", "rag.gguf"),
    ],
)
def test_a_server_that_names_its_models_by_paths(upstream_model: str, name: str) -> None:
    assert name_for_clients(upstream_model) == name


def write_index(folder: Path, encoder: Any, name: str, text: str) -> None:
    record = IndexRecord("book-1", "book", "book", "One", 1, ["Who is number 1?"], text)
    vectors = encoder.encode_passages(record.questions)
    index = Index([record], vectors, np.zeros(1, dtype=np.int32), vectors[:0], {})
    index.write(folder, {"embedder": name, "embedder_fingerprint": encoder.fingerprint})


@pytest.mark.slow
async def test_a_newer_index_is_taken_and_a_broken_one_is_not(
    run_real_proxy: Any, workspace: Any, config: Any, wait_until: Any, request_of: Any
) -> None:
    folder = workspace.read("data/world/index")
    async with run_real_proxy(watch_s=0.05) as proxy:
        asking = {"query": "Who is number 1?", "siblings": 0, "max_distance": 0.1}

        async def found() -> list[str]:
            answer = (await proxy.client.post("/v1/retrieve", json=asking)).json()
            return [document["text"] for document in answer["documents"]]

        assert await found() == ["Text 1."]
        catalogue = proxy.service.catalogue
        first = catalogue.domains["world"]
        proxy.upstream.script = ["paused"]
        before = asyncio.create_task(proxy.ask("Who is number 1?"))
        await wait_until(lambda: proxy.upstream.num_open == 1)
        write_index(folder, first.retriever.finder.encoder, config.embedder.name, "Newer text.")
        await wait_until(lambda: catalogue.domains["world"] is not first)
        assert await found() == ["Newer text."]
        proxy.upstream.words_may_go.set()
        assert (await before).json()["sources"][0]["text"].startswith("Text 1.")
        (folder / "manifest.json").write_text("{}")
        await wait_until(lambda: catalogue.num_reload_errors == 1)
        assert await found() == ["Newer text."]
        assert (await proxy.client.get("/stats")).json()["num_reload_errors"] == 1


async def test_a_newer_adapter_answers_without_a_restart(run_proxy: Any, workspace: Any) -> None:
    import safetensors.torch

    async with run_proxy() as proxy:
        older = (await proxy.ask(model="tuned")).json()["choices"][0]["message"]["content"]
        path = workspace.read("models/world/rag_lora/adapter_model.safetensors")
        weights = safetensors.torch.load_file(path)
        safetensors.torch.save_file({name: -3 * tensor for name, tensor in weights.items()}, path)
        newer = (await proxy.ask(model="tuned")).json()["choices"][0]["message"]["content"]
    assert older != newer


async def test_a_model_that_is_being_rebuilt_goes_on(
    run_proxy: Any, workspace: Any, wait_until: Any, tmp_path: Any
) -> None:
    """DVC deletes what a stage is about to make."""
    folder = workspace.read("models/world/rag_lora")
    async with run_proxy(models={}, watch_s=0.05) as proxy:
        before = (await proxy.ask(model="tuned")).json()["choices"]
        catalogue = proxy.service.catalogue
        first = catalogue.domains["world"]
        folder.rename(tmp_path / "meanwhile")
        await wait_until(lambda: catalogue.num_reload_errors == 1)
        assert (await proxy.ask(model="tuned")).json()["choices"] == before
        (tmp_path / "meanwhile").rename(folder)
        (folder / "newer").touch()
        await wait_until(lambda: catalogue.domains["world"] is not first)
        assert (await proxy.ask(model="tuned")).json()["choices"] == before
