"""A server that misbehaves as it is told to, and the proxy before it; both really listen on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from stages.core.config import parse_section
from stages.core.workspace import ROOT, Workspace
from stages.knowledge.records import IndexRecord
from stages.serving.answering import Answerer
from stages.serving.answering import Config as ChatConfig
from stages.serving.proxy.service import Service
from stages.serving.proxy.settings import Config

DEFAULTS = yaml.safe_load((ROOT / "conf" / "serve" / "default.yaml").read_text(encoding="utf-8"))
SECRET = "sk-upstream-secret-that-nobody-may-see"
INNARDS = f"Traceback: /opt/vllm/engine.py line 7, key {SECRET}"
WORDS = ["Lona", " Tir", " built", " it", "."]
WAIT_S = 60.0  # until something that has to happen has happened


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def chunk(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\n\n".encode()


USAGE = (
    b'data: {"id": "x", "choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class ScriptedUpstream:
    """An OpenAI-compatible server; `script` names what it does next, request by request, and then answers well."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.num_open = self.num_left = 0  # requests at work; those whose client has gone
        self.words: Iterable[str] = WORDS
        self.words_may_go = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.headers.append(head.decode())
                length = int(
                    next(line.split(b":")[1] for line in head.split(b"\r\n") if b"content-length" in line.lower())
                )
                self.bodies.append(json.loads(await reader.readexactly(length)))
                self.num_open += 1
                watch = asyncio.ensure_future(self._until_gone(reader))
                try:
                    await self._act(self.script.pop(0) if self.script else "answer", writer, watch)
                finally:
                    self.num_open -= 1
                    watch.cancel()
                    await asyncio.wait([watch])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        while not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.005)

    async def _act(self, what: str, writer: asyncio.StreamWriter, watch: asyncio.Future[None]) -> None:
        if what == "gone":
            raise ConnectionResetError
        if what == "never":
            await watch
            self.num_left += 1
            raise ConnectionResetError
        if what.isdecimal():
            body = json.dumps({"error": {"message": INNARDS}}).encode()
            extra = b"Retry-After: 7\r\n" if what == "429" else b""
            await self._plain(writer, int(what), body, b"application/json", extra)
        elif what == "too_long":
            message = f"This model's maximum context length is 512 tokens. {INNARDS}"
            await self._plain(writer, 400, json.dumps({"message": message}).encode(), b"application/json")
        elif what == "no_http":
            writer.write(b"\x16\x03\x01 this is another protocol\r\n\r\n")
            await writer.drain()
            raise ConnectionResetError
        elif what == "html":
            await self._plain(writer, 200, b"<html>busy</html>", b"text/html")
        else:
            await self._stream(what, writer, watch)

    async def _plain(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, kind: bytes, extra: bytes = b""
    ) -> None:
        length = b"Content-Length: %d\r\n" % len(body)
        writer.write(b"HTTP/1.1 %d x\r\nContent-Type: %s\r\n%s%s\r\n%s" % (status, kind, length, extra, body))
        await writer.drain()

    async def _stream(self, what: str, writer: asyncio.StreamWriter, watch: asyncio.Future[None]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, data in enumerate(self._events(what)):
            if what in ("paused", "slow") and number == 2:
                going = asyncio.ensure_future(self.words_may_go.wait())
                await asyncio.wait([going, watch], return_when=asyncio.FIRST_COMPLETED)
                going.cancel()
            if watch.done():
                self.num_left += 1
                raise ConnectionResetError
            if what == "cut" and number == 3:
                raise ConnectionResetError
            if what == "ended" and number == 3:
                break
            if what == "misframed" and number == 3:
                writer.write(b"zz\r\n")
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _events(self, what: str) -> Iterable[bytes]:
        yield chunk({"role": "assistant", "content": ""})
        if what == "garbage":
            yield b"data: {not json\n\n"
        if what == "nonsense":
            yield b'data: {"choices": [{"index": 9, "delta": {"content": 5}}]}\n\n'
        for word in self.words:
            yield chunk({"content": word})
            if what == "error_event":
                yield f"data: {json.dumps({'error': {'message': INNARDS}})}\n\n".encode()
        num = 1 if what == "one_choice" else self.bodies[-1].get("n", 1)
        for index in range(1, num):
            yield chunk({"content": f"choice {index}"}, None, index)
        for index in range(num):
            yield chunk({}, "stop", index)
        if what != "no_usage":
            yield USAGE
        yield DONE


async def until(happened: Callable[[], bool]) -> None:
    """Waits for something that needs no more than a few turns of the loop."""
    async with asyncio.timeout(WAIT_S):
        while not happened():
            await asyncio.sleep(0.005)


@dataclass
class Proxy:
    """The proxy as it runs, a client of it, and the server behind it."""

    service: Service
    client: httpx.AsyncClient
    upstream: ScriptedUpstream
    url: str
    tasks_before: set[asyncio.Task[Any]] = field(default_factory=set)

    async def ask(self, question: str = "About 3?", **changes: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=chat(question, **changes))

    @property
    def connectors(self) -> list[Any]:
        """Who holds the connections to the server behind."""
        sessions = [remote.client._transport.client for remote in self.service.catalogue.remotes.values()]
        return [session.connector for session in sessions if session is not None]


def chat(question: str = "About 3?", **changes: Any) -> dict[str, Any]:
    return {"model": "remote", "messages": [{"role": "user", "content": question}], **changes}


def settings(url: str = "", **changes: Any) -> Config:
    """The shipped configuration with `remote`, a model of the scripted server, and `tuned`, one of this process."""
    upstreams = {"local": {"kind": "local"}, "server": {"kind": "openai", "base_url": url or "http://127.0.0.1:1/v1"}}
    models = {"remote": {"upstream": "server", "model": "m"}, "tuned": {"upstream": "local"}}
    plain = {
        "domains": ["world"],
        "host": "127.0.0.1",
        "port": 0,
        "upstreams": upstreams,
        "models": models,
        "watch_s": 0,
    }
    merged = {**DEFAULTS, **plain}
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) and key in ("limits", "stats") else value
    merged["upstreams"]["server"] |= changes.get("server", {})
    merged.pop("server", None)
    return parse_section(Config, merged, "serve")


@pytest.fixture
def make_service(workspace: Workspace, config: ChatConfig, answerer: Answerer) -> Callable[..., Service]:
    """A service over the fake index of the answerer; keyword arguments change settings."""

    def make(url: str = "", predict_section: dict[str, Any] | None = None, **changes: Any) -> Service:
        finder = type(answerer.finder)
        predict = None if predict_section is None else lambda: predict_section
        return Service(settings(url, **changes), lambda name: asdict(config), predict, workspace, finder)

    return make


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """Runs it as `groundtune serve` does; its URL."""
    import uvicorn

    from stages.serving.proxy.app import build_app
    from stages.serving.proxy.server import listen

    socket = listen(service.config.host, 0)
    await service.start()
    server = uvicorn.Server(uvicorn.Config(build_app(service), log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([socket]))
    await until(lambda: server.started or task.done())
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        socket.close()


@asynccontextmanager
async def proxy_running(make: Callable[..., Service], **changes: Any) -> AsyncIterator[Proxy]:
    """Everything started; afterwards everything closed, and nothing left: no task, no connection."""
    before = asyncio.all_tasks()
    upstream = ScriptedUpstream()
    await upstream.start()
    service = make(upstream.url, **changes)
    async with listening(service) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        proxy = Proxy(service, client, upstream, url)
        yield proxy
        await until(lambda: service.gate.num_active == 0 and service.gate.num_waiting == 0)
        connectors = proxy.connectors
        assert not any(connector._acquired for connector in connectors)
        await until(lambda: upstream.num_open == 0)
    assert not any(connector._conns for connector in connectors)
    await upstream.stop()
    await until(lambda: asyncio.all_tasks() <= before)


@pytest.fixture
def run_proxy(make_service: Callable[..., Service]) -> Callable[..., Any]:
    """`async with run_proxy(limits={...}) as proxy:`"""
    return lambda **changes: proxy_running(make_service, **changes)


@pytest.fixture
def words() -> str:
    return "".join(WORDS)


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture
def request_of() -> Callable[..., dict[str, Any]]:
    return chat


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], Any]:
    return until


@pytest.fixture
def make_settings() -> Callable[..., Config]:
    return settings


@pytest.fixture
def run_real_proxy(config: ChatConfig, workspace: Workspace) -> Callable[..., Any]:
    """The same over an index that was made with the real embedder."""
    from stages.core.schema import Embedder
    from stages.core.stage import read_params
    from stages.retrieval.embedding import load_embedder
    from stages.retrieval.index import Index

    config.embedder = Embedder(**read_params()["embedder"])
    encoder = load_embedder(config.embedder)
    records = [chunk_record(number) for number in range(1, 5)]
    vectors = encoder.encode_passages([record.questions[0] for record in records])
    index = Index(records, vectors, np.arange(len(records), dtype=np.int32), vectors[:0], {})
    folder = workspace.write("data/world/index/x").parent
    folder.mkdir(exist_ok=True)
    index.write(folder, {"embedder": config.embedder.name, "embedder_fingerprint": encoder.fingerprint})
    return lambda **changes: proxy_running(
        lambda url, **more: Service(settings(url, **more), lambda name: asdict(config), None, workspace), **changes
    )


def chunk_record(number: int) -> IndexRecord:
    """Chunk `number` of a book."""
    return IndexRecord(f"book-{number}", "book", "book", "One", number, [f"Who is number {number}?"], f"Text {number}.")
