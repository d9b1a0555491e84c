"""The proxy before a server that others wrote."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

ASKED: Any = [{"role": "user", "content": "About 3?"}]


@pytest.mark.slow
@pytest.mark.anyio
async def test_transformers_serve_answers_as_the_model_in_this_process(
    run_proxy: Any, transformers_serve: Any, workspace: Any
) -> None:
    folder = workspace.read("models/world/book_merged")
    url, _ = await asyncio.to_thread(transformers_serve, folder)
    models = {
        "remote": {"upstream": "server", "model": str(folder), "files": str(folder)},
        "book": {"upstream": "local"},
    }
    async with run_proxy(server={"base_url": url}, models=models) as proxy:
        client = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0)
        here, there = [await client.chat.completions.create(model=name, messages=ASKED) for name in ("book", "remote")]
        stream = await client.chat.completions.create(
            model="remote", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        first, *middle, last = [chunk async for chunk in stream]
        two = await client.chat.completions.create(model="remote", messages=ASKED, n=2)
        with pytest.raises(openai.BadRequestError, match="the prompt has"):
            await client.chat.completions.create(model="remote", messages=[{"role": "user", "content": "x" * 900}])
        await client.close()
    assert there.choices[0].message.content == here.choices[0].message.content
    assert there.usage and here.usage and there.usage.prompt_tokens == here.usage.prompt_tokens
    assert there.model_extra and here.model_extra
    assert there.model_extra["sources"] == here.model_extra["sources"] == first.model_extra["sources"] != []
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in middle)
    assert streamed == there.choices[0].message.content and last.usage == there.usage
    assert [choice.message.content for choice in two.choices] == [streamed] * 2
