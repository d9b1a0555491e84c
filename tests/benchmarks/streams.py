"""Measuring gear for a server of token streams, as cheap as Python allows: it shares the cores with what it measures.

    serve_words(port)                                   an upstream: 48 words, one every 20 ms, to any request
    answers = await closed_loop(port, bodies, 32, 640)  32 clients that ask again as soon as they are answered

Both are protocols over raw bytes, without a task, a queue or a parser of HTTP for each stream.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NUM_TOKENS, TOKEN_S = 48, 0.02
WORD = b'" word"'
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def _event(value: Any) -> bytes:
    data = f"data: {json.dumps(value)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = _event({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
END = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Writes its stream to each request of a connection; the first word at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received, self._timer = b"", None
        self._num_written = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(LENGTH.search(head)[1]):
            return
        self._received, self._num_written = b"", 0
        self._start_s = self._loop.time()
        self._transport.write(HEAD)
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _write(self) -> None:
        self._num_written += 1
        if self._num_written > NUM_TOKENS:
            self._transport.write(END)
            return
        self._transport.write(TOKEN)
        late = self._num_written == NUM_TOKENS  # the end follows the last word at once
        self._timer = self._loop.call_at(self._start_s + (self._num_written - late) * TOKEN_S, self._write)


def serve_words(port: int) -> None:
    """Until it is killed."""
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
        await server.serve_forever()

    uvloop.run(serve())


@dataclass
class Answer:
    """Seconds since the request was begun. status 0: cut. words_s: when each word came."""

    status: int = 0
    whole_s: float = 0.0
    words_s: list[float] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and len(self.words_s) == NUM_TOKENS

    @property
    def gaps_s(self) -> list[float]:
        """From one word to the next."""
        return [after - before for before, after in zip(self.words_s, self.words_s[1:], strict=False)]


class Asking(asyncio.Protocol):
    """One streamed request on a connection of its own."""

    def __init__(self, request: bytes, start_s: float) -> None:
        self.answer = Answer()
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request, self._start_s, self._tail = request, start_s, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter() - self._start_s
        self.answer.status = self.answer.status or int(data[9:12])
        data = self._tail + data
        self.answer.words_s += [now_s] * data.count(WORD)
        if b"[DONE]" in data or (self.answer.status != 200 and data.endswith(b"}}")):
            self._transport.close()
            self._end(now_s)
        self._tail = data[-len(WORD) + 1 :]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answer.status = 0
            self._end(time.perf_counter() - self._start_s)

    def _end(self, now_s: float) -> None:
        self.answer.whole_s = now_s
        if not self.answered.done():
            self.answered.set_result(self.answer)


async def ask(port: int, body: bytes) -> Answer:
    """POST /v1/chat/completions. OSError where nobody listens."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    start_s = time.perf_counter()
    transport, asking = await asyncio.get_running_loop().create_connection(
        lambda: Asking(request, start_s), "127.0.0.1", port
    )
    try:
        return await asking.answered
    finally:
        transport.close()


async def closed_loop(
    port: int, bodies: Iterator[bytes], num_clients: int, num: int = 0, seconds: float = 0.0
) -> list[Answer]:
    """`num` requests, or as many as are begun within `seconds`; the clients start one after the other."""
    left, end_s, answers = iter(range(num)), time.monotonic() + seconds, list[Answer]()

    async def client(number: int) -> None:
        await asyncio.sleep(number * NUM_TOKENS * TOKEN_S / num_clients)
        while time.monotonic() < end_s if seconds else next(left, None) is not None:
            answers.append(await ask(port, next(bodies)))

    await asyncio.gather(*(client(number) for number in range(num_clients)))
    return answers
