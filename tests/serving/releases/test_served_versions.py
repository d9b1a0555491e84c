"""Registered versions through `groundtune serve`, asked for by the official client."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from stages.core.config import parse_section
from stages.core.workspace import ROOT, Workspace
from stages.serving.answering import Answerer, Config
from stages.serving.proxy.app import build_app
from stages.serving.proxy.service import Service
from stages.serving.proxy.settings import Config as ServeConfig
from stages.serving.releasing import register

pytestmark = pytest.mark.anyio

ASKED: Any = [{"role": "user", "content": "About 3?"}]


@pytest.fixture
def released(built_models: Path, repository: Workspace, rebuild: Callable[..., None]) -> Workspace:
    """v1.0.0 is the random book model, v1.1.0 the random base; beside them the models as the pipeline leaves them."""
    models = built_models / "models"
    for number, weights in enumerate((models / "world/book_merged", models / "base/random")):
        shutil.copytree(weights, repository.inputs / "weights", dirs_exist_ok=True)
        rebuild(rank=8 + number)
        register("rag", repository, "world")
    for name in ("base/random", "world/book_merged", "world/rag_lora"):
        shutil.rmtree(repository.inputs / "models" / name, ignore_errors=True)
        shutil.copytree(models / name, repository.inputs / "models" / name)
    return repository


@pytest.fixture
def serving(config: Config, answerer: Answerer, released: Workspace) -> Callable[..., Any]:
    """`async with serving() as (client, service):`"""
    defaults = yaml.safe_load((ROOT / "conf" / "serve" / "default.yaml").read_text(encoding="utf-8"))

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Service]]:
        settings = {**defaults, "domains": ["world"], "watch_s": 0, **changes}
        finder = type(answerer.finder)
        service = Service(
            parse_section(ServeConfig, settings, "serve"), lambda name: asdict(config), None, released, finder
        )
        await service.start()
        transport = httpx.AsyncClient(transport=httpx.ASGITransport(build_app(service)))
        try:
            async with openai.AsyncOpenAI(
                base_url="http://localhost/v1", api_key="x", max_retries=0, http_client=transport
            ) as client:
                yield client, service
        finally:
            await service.close()

    return start


async def answer(client: openai.AsyncOpenAI, model: str) -> str:
    said = await client.chat.completions.create(model=model, messages=ASKED)
    assert said.model_extra and [source["id"] for source in said.model_extra["sources"]] == ["book-3"]
    return said.choices[0].message.content or ""


async def test_versions_answer_side_by_side(serving: Callable[..., Any]) -> None:
    async with serving() as (client, _):
        said = {name: await answer(client, name) for name in ("book", "base")}
        names = ["world-rag@v1.0.0", "rag@v1.0.0", "world@v1.0.0", "world-rag@v1.1.0", "world@latest"]
        versions = {name: await answer(client, name) for name in names}
        listed = [model.id async for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await answer(client, "world-rag@v3.0.0")
    assert said["book"] != said["base"]
    assert list(versions.values()) == [said["book"]] * 3 + [said["base"]] * 2
    assert listed == ["tuned", "book", "base", "world-rag@v1.1.0", "world-rag@v1.0.0"]


async def test_a_configured_name_follows_the_latest(
    serving: Callable[..., Any], built_models: Path, released: Workspace, rebuild: Callable[..., None]
) -> None:
    models = {name: {"upstream": "local", "model": f"rag@{name}"} for name in ("v1.0.0", "latest")}
    async with serving(models=models, watch_s=0.05) as (client, service):
        first, second = await answer(client, "v1.0.0"), await answer(client, "latest")
        shutil.copytree(built_models / "models/world/book_merged", released.inputs / "weights", dirs_exist_ok=True)
        rebuild(rank=10)
        register("rag", released, "world")
        async with asyncio.timeout(60):
            while service.catalogue.entries["latest"].upstream_model != "world-rag@v1.2.0":
                await asyncio.sleep(0.05)
        assert [await answer(client, name) for name in ("v1.0.0", "latest")] == [first, first] != [first, second]


async def test_a_version_whose_files_are_lost(serving: Callable[..., Any], released: Workspace) -> None:
    shutil.rmtree(released.inputs / ".dvc" / "cache")
    async with serving() as (client, _):
        with pytest.raises(openai.InternalServerError) as error:
            await answer(client, "world-rag@v1.0.0")
    assert (error.value.status_code, error.value.code) == (503, "model_unavailable")
