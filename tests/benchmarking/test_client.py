"""One endpoint: what it is found to do, and every way in which it may fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from stages.benchmarking.client import Client, open_client
from stages.benchmarking.replies import ChatRequest, Reply, RetrieveRequest
from stages.benchmarking.settings import Endpoint
from stages.core.errors import ConfigError, DataError

KEY = "sk-this-is-the-secret"
Result = TypeVar("Result")
TEXTS = ("a few words", "a few words " * 20)
HELLO = ChatRequest([{"role": "user", "content": "hello there"}], max_tokens=8)


def using(endpoint: Endpoint, act: Callable[[Client], Awaitable[Result]], timeout_s: float = 5.0) -> Result:
    async def go() -> Result:
        async with open_client("it", endpoint, endpoint.base_url, timeout_s) as client:
            return await act(client)

    return asyncio.run(go())


async def known(client: Client) -> Client:
    await client.find_model()
    await client.probe(TEXTS)
    return client


async def hello(client: Client) -> Reply:
    await client.find_model()
    return await client.send(HELLO)


def test_an_endpoint_is_found_out(server: Any) -> None:
    server.models = [{"id": "scripted", "context_tokens": 512}]
    client = using(Endpoint(base_url=server.url), known)
    assert client.model == "scripted"
    assert (client.can.streams, client.can.counts_tokens, client.can.retrieves) == (True, True, False)
    assert client.can.max_context_tokens == 512
    assert client.can.tokens_per_char == pytest.approx(57 / 229)  # the server counts words, and ten more
    assert client.chars_of(1000) == int((1000 - client.can.template_tokens) / client.can.tokens_per_char)
    assert "rag" not in server.bodies[0]


def test_a_server_that_retrieves_is_asked_without_documents(server: Any) -> None:
    server.documents = [{"id": "qa-1", "kind": "qa"}, {"id": "book-1", "kind": "book"}]

    async def act(client: Client) -> list[Reply]:
        await known(client)
        asked = RetrieveRequest("Who?", "world", ("book",), top_k=2, max_distance=2.0, siblings=0)
        served = ChatRequest(HELLO.messages, 8, sources=("book",))
        return [await client.send(HELLO), await client.send(served), await client.send(asked)]

    replies = using(Endpoint(base_url=server.url), act)
    assert [body.get("rag") for body in server.bodies[-3:]] == [{"off": True}, {"sources": ["book"]}, None]
    assert [row["id"] for row in replies[2].documents] == ["book-1"]


def test_a_server_without_stream_options_is_asked_without_them(server: Any) -> None:
    server.fault = "options"
    client = using(Endpoint(base_url=server.url), known)
    assert client.can.streams and not client.can.counts_tokens
    assert [("stream_options" in body) for body in server.bodies] == [True, False, False]


def test_a_server_that_does_not_stream(server: Any) -> None:
    server.fault = "whole"
    client = using(Endpoint(base_url=server.url), known)
    assert not client.can.streams and client.can.counts_tokens


@pytest.mark.parametrize(
    ("fault", "failure", "detail"),
    [
        ("429", "http_429", "no, Bearer ***"),
        ("500", "http_500", "no, Bearer ***"),
        ("cut", "cut", "after 1 pieces"),
        ("empty", "empty", "without an end"),
        ("garbage", "garbage", "no events of JSON"),
        ("error_event", "error_event", "the upstream is gone"),
        ("slow", "timeout", "no whole answer within 0.4 s"),
    ],
)
def test_a_failure_is_a_reply_that_says_what_it_was(
    server: Any, monkeypatch: pytest.MonkeyPatch, fault: str, failure: str, detail: str
) -> None:
    monkeypatch.setenv("BENCH_KEY", KEY)
    server.fault = fault
    reply = using(Endpoint(base_url=server.url, api_key_env="BENCH_KEY"), hello, timeout_s=0.4)
    assert reply.failure == failure and detail in reply.detail
    assert KEY not in reply.detail and not reply.is_whole


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(DataError, match=rf"{url}: no answer .*is the server up"):
        using(Endpoint(base_url=url), known)

    async def ask(client: Client) -> Reply:
        return await client.send(HELLO)

    assert using(Endpoint(base_url=url, model="m"), ask).failure == "unreachable"


def test_a_wrong_key_and_none(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "another"
    with pytest.raises(DataError, match="wants a key; name the environment variable"):
        using(Endpoint(base_url=server.url), known)
    monkeypatch.setenv("BENCH_KEY", KEY)
    with pytest.raises(DataError, match="refuses the key in BENCH_KEY") as error:
        using(Endpoint(base_url=server.url, api_key_env="BENCH_KEY"), known)
    assert KEY not in str(error.value)
    monkeypatch.delenv("BENCH_KEY")
    with pytest.raises(ConfigError, match="the environment has no BENCH_KEY"):
        using(Endpoint(base_url=server.url, api_key_env="BENCH_KEY"), known)


def test_an_unknown_model_is_told_those_that_there_are(server: Any) -> None:
    with pytest.raises(DataError, match="no model 'third'; there are scripted, other"):
        using(Endpoint(base_url=server.url, model="third"), known)


def test_a_server_that_names_no_models(server: Any) -> None:
    server.models = None
    with pytest.raises(DataError, match=r"/models names none \(HTTP 404\); say which with --model"):
        using(Endpoint(base_url=server.url), known)
    assert using(Endpoint(base_url=server.url, model="m"), known).model == "m"
    server.fault = "500"
    with pytest.raises(DataError, match=r"'m' answers no request \(http_500"):
        using(Endpoint(base_url=server.url, model="m"), known)


def test_what_is_no_url_is_refused() -> None:
    for url in ("localhost:8000", "ftp://host/v1", "http://me:secret@host/v1", "http://host/v1?key=a"):
        with pytest.raises(ValueError, match="base_url"):
            Endpoint(base_url=url)
    with pytest.raises(ValueError, match="name of an environment variable"):
        Endpoint(base_url="http://host/v1", api_key_env="sk-secret")
