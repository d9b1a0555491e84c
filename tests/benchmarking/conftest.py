"""A scripted OpenAI-compatible server, and the settings of a small benchmark of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import PROMPT

from stages.benchmarking.settings import Coherence, Config, Context, Endpoint, Questions, Throughput, Writing
from stages.core.schema import Embedder, Model, Retrieval
from stages.core.workspace import ROOT, Workspace
from stages.serving.answering import Config as Chat

KEY = "sk-this-is-the-secret"
DEFAULTS = yaml.safe_load((ROOT / "conf" / "benchmark" / "default.yaml").read_text(encoding="utf-8"))


class ScriptedServer(ThreadingHTTPServer):
    """Answers every chat with `pieces`, and as `fault` says: a status, or one of the faults in `_answer`.

    limit: prompts of more words are refused with 400. bodies: the requests that came, in order.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pieces: Callable[[str], list[str]] = lambda question: ["One ", "answer", "."]
        self.models: list[dict[str, Any]] | None = [{"id": "scripted"}, {"id": "other"}]
        self.key = ""
        self.fault: str = ""
        self.fault_after = 0  # requests that are answered well before
        self.limit = 0
        self.documents: list[dict[str, Any]] | None = None  # None: there is no /v1/retrieve
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._json(401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
        elif self.path == "/v1/models" and self.server.models is not None:
            self._json(200, {"data": self.server.models})
        elif self.path == "/v1/retrieve" and self.server.documents is not None:
            self._json(405, {"error": {"message": "POST it"}})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append({"path": self.path, **body})
            number = len(self.server.bodies)
        if self.path == "/v1/retrieve":
            found = [row for row in self.server.documents or [] if row["kind"] in body["sources"]]
            self._json(200, {"domain": body["domain"], "documents": found[: body["top_k"]]})
            return
        words = " ".join(message["content"] for message in body["messages"]).split()
        if self.server.limit and len(words) > self.server.limit:
            self._json(400, {"error": {"message": f"{len(words)} words do not fit into {self.server.limit}"}})
            return
        fault = self.server.fault if number > self.server.fault_after else ""
        self._answer(body, self.server.pieces(body["messages"][-1]["content"])[: body["max_tokens"]], len(words), fault)

    def _answer(self, body: dict[str, Any], pieces: list[str], num_words: int, fault: str) -> None:
        if fault.isdigit():
            self._json(int(fault), {"error": {"message": f"no, {self.headers.get('Authorization')}"}})
            return
        if fault == "options" and "stream_options" in body:
            self._json(422, {"detail": "stream_options: extra fields not permitted"})
            return
        usage = {"prompt_tokens": 10 + num_words, "completion_tokens": len(pieces)}
        if fault == "whole":
            message = {"role": "assistant", "content": "".join(pieces)}
            self._json(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
            return
        chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
        lines = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
        end = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        counts = json.dumps({"choices": [], "usage": usage})
        script = {
            "": [*lines, end, counts, "[DONE]"],
            "options": [*lines, end, "[DONE]"],
            "no_usage": [*lines, end, "[DONE]"],
            "cut": lines[:1],
            "empty": [],
            "garbage": [lines[0], "<html>busy</html>"],
            "error_event": [lines[0], json.dumps({"error": {"message": "the upstream is gone", "code": 502}})],
            "slow": lines,
        }[fault]
        self._stream(script, slow=fault == "slow")

    def _stream(self, script: list[str], slow: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for line in script:
            self.wfile.write(f"data: {line}\n\n".encode())
            self.wfile.flush()
        if slow:
            time.sleep(2)
        self.close_connection = True

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _running() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    yield from _running()


@pytest.fixture
def second_server() -> Iterator[ScriptedServer]:
    yield from _running()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(inputs=tmp_path, outputs=tmp_path)


@pytest.fixture
def config(server: ScriptedServer) -> Config:
    """Two rounds of everything against the scripted server."""
    chat = Chat(
        domain="world",
        model=Model(name="tiny", kind="build", max_context_tokens=400),
        embedder=Embedder(name="numbers", package="none", dimension=8, max_tokens=8),
        prompt=replace(PROMPT),
        retrieval=Retrieval(store="faiss"),
        kinds=["qa", "book"],
        top_k=2,
        max_distance=0.35,
        num_siblings=1,
        max_new_tokens=16,
    )
    return Config(
        chat=chat,
        language="en",
        seed=13,
        kinds=["book"],
        held_out_share=0.1,
        endpoints={"scripted": Endpoint(base_url=server.url)},
        timeout_s=5.0,
        max_concurrent=2,
        num_resamples=200,
        throughput=Throughput([1, 3], num_rounds=2, num_requests=2, num_warm_up=1, prompt_tokens=60, max_tokens=3),
        context=Context(min_tokens=50, max_tokens=400, num_requests=2, answer_tokens=3),
        writing=Writing(
            prompts=["Use {keywords}.", "Write with {keywords}."],
            keywords=["answer", "bridge", "winter"],
            num_keywords=2,
            num_prompts=6,
            max_tokens=8,
        ),
        coherence=Coherence(num_tokens=200, num_stories=3, max_tokens=8),
        retrieval=Questions(),
        pipeline=Questions(),
    )


@pytest.fixture
def both(config: Config, second_server: ScriptedServer) -> Config:
    """The same with a second endpoint beside it."""
    second_server.pieces = lambda question: ["Another ", "bridge", ", and ", "answer"]
    return replace(config, endpoints={**config.endpoints, "second": Endpoint(base_url=second_server.url)})
