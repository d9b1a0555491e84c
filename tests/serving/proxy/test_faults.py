"""What happens when the model's server, or the client, fails: each way once, with nothing left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

FAULTS = [
    ("429", 429, "upstream_busy"),
    ("500", 502, "upstream_error"),
    ("401", 502, "upstream_error"),
    ("404", 502, "upstream_error"),
    ("400", 400, "upstream_refused"),
    ("too_long", 400, "context_length_exceeded"),
    ("html", 502, "upstream_garbage"),
    ("garbage", 502, "upstream_garbage"),
    ("nonsense", 502, "upstream_garbage"),
    ("gone", 502, "upstream_gone"),
    ("no_http", 502, "upstream_gone"),
]


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "status", "code"), FAULTS)
async def test_a_fault_has_a_status_and_our_own_words(
    run_proxy: Any, words: str, fault: str, status: int, code: str, stream: bool, caplog: Any, secret: str
) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = [fault]
        response = await proxy.ask(stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert ("retry-after" in response.headers) == (status == 429)
        assert fault != "429" or response.headers["retry-after"] == "7"
        again = await proxy.ask()
        assert again.json()["choices"][0]["message"]["content"] == words
    assert secret not in response.text + caplog.text
    assert "Traceback" not in response.text and "vllm" not in response.text


@pytest.mark.parametrize("fault", ["cut", "ended", "error_event"])
async def test_a_stream_that_dies_ends_with_a_typed_event(run_proxy: Any, fault: str, secret: str) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = [fault]
        response = await proxy.ask(stream=True)
        *said, last = events(response)
        assert response.status_code == 200
        assert said[1]["choices"][0]["delta"]["content"] == "Lona"
        assert last["error"]["type"] == "upstream_error"
        assert last["error"]["code"] in ("upstream_gone", "upstream_cut", "upstream_error")
        assert proxy.service.stats.num_stream_errors == 1
    assert secret not in response.text


@pytest.mark.parametrize("fault", ["cut", "ended", "error_event"])
async def test_a_whole_answer_whose_stream_dies_is_an_error(run_proxy: Any, fault: str) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = [fault]
        assert (await proxy.ask()).status_code == 502


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_server_is_given_up(run_proxy: Any, stream: bool) -> None:
    async with run_proxy(server={"read_timeout_s": 0.2}) as proxy:
        proxy.upstream.script = ["never"]
        response = await proxy.ask(stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


async def test_a_server_that_falls_silent_in_a_stream_is_given_up(run_proxy: Any) -> None:
    async with run_proxy(server={"read_timeout_s": 0.2}) as proxy:
        proxy.upstream.script = ["paused"]
        last = events(await proxy.ask(stream=True))[-1]
        assert last["error"]["code"] == "upstream_timeout"


async def test_a_body_whose_framing_breaks_is_given_up(run_proxy: Any) -> None:
    async with run_proxy(server={"read_timeout_s": 0.5}) as proxy:
        proxy.upstream.script = ["misframed"]
        assert events(await proxy.ask(stream=True))[-1]["error"]["type"] == "upstream_error"


async def test_an_answer_that_takes_too_long_as_a_whole_is_given_up(run_proxy: Any) -> None:
    async with run_proxy(server={"total_timeout_s": 0.3}) as proxy:
        proxy.upstream.script = ["paused"]
        assert (await proxy.ask()).status_code == 504


async def test_a_server_that_is_not_there_and_comes_back(run_proxy: Any, words: str) -> None:
    async with run_proxy() as proxy:
        await proxy.upstream.stop()
        refused = await proxy.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unreachable")
        assert str(proxy.upstream.port) not in refused.text
        await proxy.upstream.start()
        assert (await proxy.ask()).json()["choices"][0]["message"]["content"] == words


async def test_a_server_that_restarts_between_two_questions_is_found_again(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        assert (await proxy.ask()).status_code == 200
        await proxy.upstream.stop()
        await proxy.upstream.start()
        assert (await proxy.ask()).status_code == 200


@pytest.mark.parametrize("script", ["never", "paused"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_server(
    run_proxy: Any, wait_until: Any, script: str, stream: bool
) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = [script]
        asking = asyncio.create_task(proxy.ask(stream=stream))
        await wait_until(lambda: proxy.upstream.num_open == 1)
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        await wait_until(lambda: proxy.upstream.num_left == 1)
        await wait_until(lambda: proxy.service.gate.num_active == 0)
        await wait_until(lambda: proxy.service.stats.requests["/v1/chat/completions", 499] == 1)


async def test_a_client_that_takes_nothing_loses_its_place(run_proxy: Any, request_of: Any, wait_until: Any) -> None:
    async with run_proxy(limits={"client_timeout_s": 0.3}) as proxy:
        proxy.upstream.words = [" word" * 2000] * 4000  # more than all buffers on the way hold
        host, port = "127.0.0.1", int(proxy.url.rsplit(":", 1)[1])
        _, writer = await asyncio.open_connection(host, port, limit=1)
        body = json.dumps(request_of(stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await wait_until(lambda: proxy.service.gate.num_active == 1)
        await wait_until(lambda: proxy.service.gate.num_active == 0 and proxy.upstream.num_open == 0)
        writer.transport.abort()


async def test_a_client_that_sends_its_request_too_slowly_is_refused(run_proxy: Any) -> None:
    async with run_proxy(limits={"body_timeout_s": 0.2}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rsplit(":", 1)[1]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_timeout" in answer
        writer.close()


async def test_requests_wait_and_then_are_refused(run_proxy: Any, wait_until: Any, words: str) -> None:
    async with run_proxy(limits={"max_concurrent": 1, "max_queue": 1, "queue_timeout_s": 5}) as proxy:
        proxy.upstream.script = ["paused"]
        first = asyncio.create_task(proxy.ask())
        await wait_until(lambda: proxy.upstream.num_open == 1)
        second = asyncio.create_task(proxy.ask())
        await wait_until(lambda: proxy.service.gate.num_waiting == 1)
        third = await proxy.ask()
        assert (third.status_code, third.json()["error"]["code"]) == (429, "queue_full")
        assert int(third.headers["retry-after"]) >= 1
        proxy.upstream.words_may_go.set()
        assert [response.status_code for response in await asyncio.gather(first, second)] == [200, 200]


async def test_who_waits_too_long_is_refused(run_proxy: Any, wait_until: Any) -> None:
    async with run_proxy(limits={"max_concurrent": 1, "queue_timeout_s": 0.1}) as proxy:
        proxy.upstream.script = ["paused"]
        first = asyncio.create_task(proxy.ask())
        await wait_until(lambda: proxy.upstream.num_open == 1)
        assert (await proxy.ask()).json()["error"]["code"] == "queue_timeout"
        proxy.upstream.words_may_go.set()
        assert (await first).status_code == 200


async def test_clients_that_leave_at_any_moment_leave_nothing(run_proxy: Any, request_of: Any, wait_until: Any) -> None:
    """run_proxy looks for places, tasks and connections that were not given back."""
    async with run_proxy() as proxy:
        port = int(proxy.url.rsplit(":", 1)[1])
        for number in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            body = json.dumps(request_of(stream=number % 2 == 0)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await asyncio.sleep(number * 0.001)
            writer.transport.abort()
        await wait_until(lambda: sum(proxy.service.stats.requests.values()) == 60)
        await wait_until(lambda: not any(domain._num_users for domain in proxy.service.catalogue.domains.values()))
        assert (await proxy.ask()).status_code == 200
