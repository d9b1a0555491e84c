"""The official client of OpenAI's API, and wild requests made from the API's own schema."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import openai
import pytest


def client_of(proxy: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0)


# Why a request is refused whose every part is as the schema says: what depends on several parts, or on what is served.
NO_SCHEMA_SAYS = {
    "wrong_role",  # turns' order
    "empty_question",  # only the last message has to hold something
    "system_not_supported",  # beside documents
    "images_not_supported",
    "context_length_exceeded",
    "unknown_source",
    "unknown_set",
    "pair_with_itself",
}

MESSAGES: Any = [{"role": "user", "content": "About 3?"}]


@pytest.mark.anyio
async def test_the_official_client(run_proxy: Any, words: str) -> None:
    async with run_proxy() as proxy, client_of(proxy) as client:
        answer = await client.chat.completions.create(model="remote", messages=MESSAGES)
        assert answer.choices[0].message.content == words
        assert answer.usage is not None and answer.usage.completion_tokens == 5
        assert answer.model_extra and answer.model_extra["sources"][0]["id"] == "book-3"
        stream = await client.chat.completions.create(
            model="remote", messages=MESSAGES, stream=True, extra_body={"rag": {"siblings": 0}}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == words
        assert chunks[0].model_extra and chunks[0].model_extra["sources"][0]["text"] == "Text 3."
        assert [model.id async for model in client.models.list()] == ["remote", "tuned"]
        assert (await client.models.retrieve("tuned")).id == "tuned"
        assert (await client.chat.completions.create(model="tuned", messages=MESSAGES)).usage is not None


@pytest.mark.anyio
async def test_the_official_clients_errors(run_proxy: Any) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (openai.NotFoundError, {"model": "nobody"}, ""),
        (openai.BadRequestError, {"temperature": 9}, ""),
        (openai.RateLimitError, {}, "429"),
        (openai.InternalServerError, {}, "500"),
    ]
    async with run_proxy() as proxy, client_of(proxy) as client:
        for error, changes, script in cases:
            proxy.upstream.script = [script] if script else []
            with pytest.raises(error):
                await client.chat.completions.create(**{"model": "remote", "messages": MESSAGES, **changes})
        proxy.upstream.script = ["cut"]
        with pytest.raises(openai.APIError, match="model's server"):
            async for _ in await client.chat.completions.create(model="remote", messages=MESSAGES, stream=True):
                pass


@pytest.mark.anyio
@pytest.mark.slow
async def test_embeddings_of_the_official_client(run_real_proxy: Any) -> None:
    """Base64 behind its back; the same numbers as the embedder's own."""
    async with run_real_proxy() as proxy, client_of(proxy) as client:
        texts = ["Who founded Bako?", "A mill."]
        made = await client.embeddings.create(model="minilm", input=texts)
        plain = await client.embeddings.create(model="minilm", input=texts[0], encoding_format="float")
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="ada", input="x")
        with pytest.raises(openai.BadRequestError):
            await client.embeddings.create(model="minilm", input=[])
        encoder = proxy.service.catalogue.domains["world"].retriever.finder.encoder
        expected = encoder.encode_queries(texts)
    np.testing.assert_allclose([row.embedding for row in made.data], expected, atol=1e-6)
    np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-6)
    assert made.usage.prompt_tokens == 12


@pytest.mark.anyio
@pytest.mark.slow
async def test_wild_requests_from_the_schema(run_proxy: Any) -> None:
    """Schemathesis: no 5xx, no undocumented status, no answer that its schema does not allow, and what the schema
    allows is answered."""
    async with run_proxy() as proxy:
        problems = await asyncio.to_thread(_wild_requests, proxy.url)
    assert not problems, "\n\n".join(problems)


def _wild_requests(url: str) -> list[str]:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    problems = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            if isinstance(case.body, dict) and str(case.body.get("model", ""))[:1].isalpha():
                case.body["model"] = "remote"  # else there is none, and nothing else is looked at
            response = case.call(base_url=url)
            unstated = response.status_code == 400 and response.json()["error"]["code"] in NO_SCHEMA_SAYS
            case.validate_response(response, excluded_checks=[positive_data_acceptance] if unstated else [])

        try:
            ask()
        except BaseException as error:  # its groups of failures are no Exception
            problems.append(f"{operation.label}: {error}"[:4000])
    return problems
