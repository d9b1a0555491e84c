"""What the monitor shows, and says where there is nothing to show."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.console import Console

from stages.core.errors import ConfigError, DataError
from stages.serving.monitor_command import reader, view

STATS = {
    "uptime_s": 3725.0,
    "num_active": 2,
    "num_waiting": 1,
    "num_requests": {"/v1/chat/completions": {"200": 1200, "429": 3}},
    "num_stream_errors": 4,
    "num_reload_errors": 0,
    "latency_s": {"/v1/chat/completions": {"p50": 0.5, "p90": 1.25, "p99": 2.0}},
    "retrieval_s": {"p50": 0.008, "p90": 0.01, "p99": 0.02},
    "first_token_s": {},
    "prompt_tokens": 5000,
    "completion_tokens": 1234,
    "tokens_per_s": 12.34,
    "chunks": {"demo": 1047},
    "query_cache": {"num_cached": 1, "num_embedded": 2},
    "recent": None,
}
RECENT = {
    "at": 0.0,
    "model": "tuned",
    "num_documents": 2,
    "nearest": 0.1234,
    "query_chars": 9,
    "query": "[red]\x1b[31mWho\nasks?",
    "status": 200,
    "elapsed_s": 0.5,
    "num_completion_tokens": 7,
}


def shown(**changes: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(view("http://x", {**STATS, **changes}))
    return console.export_text()


def test_everything_is_there() -> None:
    text = shown()
    for words in (
        "up 1:02:05",
        "2 at work, 1 waiting",
        "1,234 tokens written, 12.3/s",
        "1,047 chunks of demo",
        "1,200 x 200  3 x 429",
        "500 ms",
        "1,250 ms",
        "broken streams 4",
    ):
        assert words in text


def test_recent_queries_are_text_and_nothing_more() -> None:
    assert "[red][31mWho asks?" in shown(recent=[RECENT])  # neither markup nor an escape sequence
    assert "(9 characters)" in shown(recent=[{**RECENT, "query": ""}])


class Answers(BaseHTTPRequestHandler):
    """By its path."""

    def do_GET(self) -> None:
        status = 401 if self.headers.get("Authorization") != "Bearer right" else 200
        body = b"<html>" if self.path.startswith("/other") else json.dumps(STATS).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_reading(url: str) -> None:
    assert reader(url, "right")()["completion_tokens"] == 1234
    with pytest.raises(ConfigError, match="another key"):
        reader(url, "wrong")()
    with pytest.raises(DataError, match="no groundtune proxy"):
        reader(f"{url}/other", "right")()
    with pytest.raises(DataError, match="no proxy answers"):
        reader("http://127.0.0.1:1", "")()
