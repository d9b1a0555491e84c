"""A server that misbehaves as it is told to, a knowledge base of small facts, and the settings to ask about them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import PROMPT, TEMPLATE, write_base_manifest

from stages.core.schema import Model
from stages.core.workspace import ROOT, Workspace
from stages.generate_sft import Config
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk
from stages.synthetic.settings import Filters, Local, Provider, Style, Wording

DEFAULTS = yaml.safe_load((ROOT / "conf" / "generate_sft" / "default.yaml").read_text(encoding="utf-8"))
KEY = "sk-this-is-the-secret"
SYLLABLES = ("ba", "ko", "li", "mu", "ne", "po")
NAMES = [f"{a}{b}{c}".capitalize() for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def fact_chunks(count: int, documents: int = 3) -> list[Chunk]:
    """Chunk n says who founded the mill NAMES[n], and when."""
    return [
        Chunk(
            f"book-{n:04d}", "book", f"d{n % documents}", "", n, f"The mill {NAMES[n]} was built in {1200 + n} by Lona."
        )
        for n in range(count)
    ]


def good_pair(text: str) -> dict[str, str]:
    """A pair that passes every filter."""
    name, year = text.split()[2], text.split()[6]
    return {"question": f"When was the mill {name} built?", "answer": f"The mill {name} was built in {year}."}


class FakeServer(ThreadingHTTPServer):
    """An OpenAI-compatible server; `faults`: name in the chunk -> what goes wrong, one fault for each attempt.

    Beyond the list the last fault goes on if it is about content; others end.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: dict[str, list[str]] = {}
        self.refused_formats: set[str] = set()
        self.delay_s = 0.0
        self.attempts: Counter[str] = Counter()  # chunk's text -> requests that came
        self.answered: Counter[str] = Counter()  # ... and that got a whole answer
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.authorizations: set[str] = set()
        self.lock = threading.Lock()
        self.num_open = self.most_open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"].split("<document>")[-1].split("</document>")[0].strip()
        with server.lock:
            server.times.append(time.monotonic())
            server.bodies.append(body)
            server.authorizations.add(self.headers.get("Authorization", ""))
            number = server.attempts[text]
            server.attempts[text] += 1
            server.num_open += 1
            server.most_open = max(server.most_open, server.num_open)
        time.sleep(server.delay_s)
        try:
            self._answer(body, text, number)
        finally:
            with server.lock:
                server.num_open -= 1

    def _answer(self, body: dict[str, Any], text: str, number: int) -> None:
        faults = next((f for name, f in self.server.faults.items() if name in text), [])
        fault = faults[min(number, len(faults) - 1)] if faults else ""
        if number >= len(faults) and fault not in CONTENTS:
            fault = ""
        response_format = body.get("response_format", {}).get("type", "text")
        if response_format in self.server.refused_formats:
            self._send(400, {"error": {"message": f"{response_format} is not supported"}})
        elif fault.isdigit():
            self._send(
                int(fault), {"error": {"message": f"no, {self.headers.get('Authorization')}"}}, {"Retry-After": "0.2"}
            )
        elif fault == "timeout":
            time.sleep(3)
        elif fault == "gone":
            self.close_connection = True
        elif fault == "cut":
            self._send(200, {"choices": [{"message": {"content": "half"}}]}, cut=True)
        elif fault == "garbage":
            self._send_bytes(200, b"<html>busy</html>", {})
        elif fault == "empty":
            self._send(200, {"error": {"message": "upstream is busy"}})
        else:
            content = CONTENTS[fault](text) if fault else json.dumps({"pairs": [good_pair(text)]})
            with self.server.lock:
                self.server.answered[text] += 1
            message = {"role": "assistant", "content": content}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            self._send(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def _send(self, status: int, data: Any, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self._send_bytes(status, json.dumps(data).encode(), headers or {}, cut)

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut


def _wrapped(pair: Callable[[str], Any]) -> Callable[[str], str]:
    return lambda text: json.dumps({"pairs": [pair(text)]}, ensure_ascii=False)


CONTENTS: dict[str, Callable[[str], str]] = {
    "invalid_json": lambda text: '{"pairs": [{"question": "Who',
    "wrong_schema": _wrapped(lambda text: {"question": 7, "answer": ["a"]}),
    "none": lambda text: '{"pairs": []}',
    "german": _wrapped(
        lambda text: {
            "question": "Wann wurde die Mühle gebaut?",
            "answer": "Die Mühle wurde in dem Jahr von ihr gebaut.",
        }
    ),
    "about_text": _wrapped(
        lambda text: {"question": "What does the text say about Lona?", "answer": good_pair(text)["answer"]}
    ),
    "invented": _wrapped(lambda text: {**good_pair(text), "answer": "It was built in 1999."}),
    "refused": lambda text: json.dumps({"pairs": [{**good_pair(text), "answer": "I'm sorry, I cannot help with it."}]}),
    "instruction": lambda text: json.dumps({"instruction": f"Tell  of {text.split()[2]}\nin 50 words."}),
    "quoting": lambda text: json.dumps({"instruction": f"Continue: {text[:300]}"}),
    "long": lambda text: json.dumps({"instruction": "Tell of it. " * 100}),
    "chatty": lambda text: f"Here you are:\n```json\n{json.dumps({'pairs': [good_pair(text)]})}\n``` Enjoy {KEY}!",
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield fake
    fake.shutdown()
    fake.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(inputs=tmp_path, outputs=tmp_path)


@pytest.fixture
def knowledge(workspace: Workspace) -> Callable[[int], None]:
    """Writes a knowledge base of so many chunks."""
    return lambda count: _write(workspace, count)


def _write(workspace: Workspace, count: int) -> None:
    write_knowledge(workspace.write("data/mills/knowledge.sqlite"), [], fact_chunks(count))


@pytest.fixture
def config(server: FakeServer) -> Config:
    """Asks the fake server for one factual pair a chunk."""
    return Config(
        domain="mills",
        language="en",
        audience="millers",
        curation_dir="data/mills/curation",
        seed=13,
        model=Model(name="tiny", kind="build", max_context_tokens=1024),
        prompt=PROMPT,
        method="instruct",
        styles={"factual": Style(instruction="Write questions about facts.", frame_answer="{answer}")},
        pairs_per_chunk=1,
        potential_questions=0,
        limit=0,
        take="passed",
        wording=Wording(**DEFAULTS["wording"]),
        provider=provider_of(server.url),
        filters=Filters(**DEFAULTS["filters"]),
        local=Local(**DEFAULTS["local"]),
    )


def provider_of(url: str, **changes: Any) -> Provider:
    """Impatient settings."""
    provider = Provider(
        kind="openai",
        base_url=url,
        model="fake",
        temperature=0.5,
        max_tokens=100,
        timeout_s=0.5,
        max_concurrent=4,
        max_attempts=4,
        backoff_s=0.01,
        price_per_million_input=1.0,
        price_per_million_output=5.0,
    )
    return replace(provider, **changes)


@pytest.fixture
def chunks() -> Callable[[int], list[Chunk]]:
    return fact_chunks


@pytest.fixture
def random_base(workspace: Workspace) -> Path:
    """models/base/random: a Llama of a few thousand weights over characters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95, "<|end|>": 96}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=96,
        bos_token_id=None,
        initializer_range=0.3,
    )
    folder = workspace.write("models/base/random/x").parent
    fast.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    write_base_manifest(folder)
    return folder
