"""What the proxy costs, how it takes a crowd, and whether it grows.

    python tests/benchmarks/proxy.py                  overhead, 1,000 connections, ten minutes of load
    python tests/benchmarks/proxy.py --minutes 1

Four processes: a scripted upstream that writes 48 tokens at 50 tokens/s a stream, the proxy over an index of 10,000
chunks (random vectors; questions are really embedded), this client, and nothing else that should run beside them.
Needs models/base/tiny (`dvc checkout`, or `dvc repro base_model`). Writes reports/bench/proxy.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.stage import load_section, read_params
from stages.core.workspace import ROOT, Workspace
from stages.evaluation.markdown import table

SEED = 13
NUM_CHUNKS = 10_000
NUM_TOKENS, TOKEN_S = 48, 0.02
NUM_STREAMS = 32
NUM_REQUESTS = 640
NUM_REPEATED = 20  # distinct questions where they repeat
CROWD = 1000
HUNG_S = 90.0
WARM_UP_S = 30.0
SYLLABLES = [a + b for a in "bdgklmnprst" for b in "aeiou"]
AIM = {"p50": 10, "p99": 40}


def sentence(draw: random.Random, num_words: int) -> str:
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(2, 3))) for _ in range(num_words)]
    return " ".join(words).capitalize() + "."


def write_index(workspace: Workspace) -> None:
    """10,000 chunks of 20 words; unit vectors without meaning, so that every question finds some."""
    from stages.core.schema import Embedder
    from stages.knowledge.records import IndexRecord
    from stages.retrieval.embedder_files import embedder_fingerprint
    from stages.retrieval.index import Index

    draw, embedder = random.Random(SEED), Embedder(**read_params()["embedder"])
    records = [
        IndexRecord(f"book-{n:05d}", "book", f"book {n // 100}", f"{n // 20}", n, [], sentence(draw, 20))
        for n in range(NUM_CHUNKS)
    ]
    vectors = np.random.default_rng(SEED).normal(size=(NUM_CHUNKS, embedder.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index(records, vectors, np.arange(NUM_CHUNKS, dtype=np.int32), vectors[:0], {})
    folder = workspace.write("data/bench/index/manifest.json").parent
    index.write(folder, {"embedder": embedder.name, "embedder_fingerprint": embedder_fingerprint(embedder)})


def run_upstream(port: int) -> None:
    """Reads a request, writes its stream, on one connection after the other request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                start = asyncio.get_running_loop().time()
                for number in range(NUM_TOKENS):
                    await asyncio.sleep(max(0.0, start + number * TOKEN_S - asyncio.get_running_loop().time()))
                    _write(writer, {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
                    await writer.drain()
                _write(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=2048)
        await server.serve_forever()

    asyncio.run(serve())


def _write(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def run_proxy(port: int, upstream_port: int, folder: Path) -> None:
    """`groundtune serve` with the shipped settings, but for these."""
    from stages.serving.proxy.server import serve
    from stages.serving.proxy.service import Service
    from stages.serving.proxy.settings import Config

    chat = {**load_section("chat"), "domain": "bench", "kinds": ["book"], "max_distance": 2.0, "styles": []}
    settings = {
        **load_section("serve"),
        "port": port,
        "domains": ["bench"],
        "upstreams": {"server": {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1"}},
        "models": {"bench": {"upstream": "server"}},
    }
    service = Service(parse_section(Config, settings, "serve"), lambda _: chat, None, Workspace(ROOT, folder))
    serve(service)


@dataclass
class Answer:
    """Times in milliseconds since the request was begun; status 0: cut."""

    status: int
    first_ms: float = 0.0
    whole_ms: float = 0.0


async def ask(port: int, question: str, content: str) -> Answer:
    """One streamed request on a connection of its own. content: of the system message, for the bare upstream."""
    messages = [{"role": "system", "content": content}] if content else []
    body = {"model": "bench", "stream": True, "messages": [*messages, {"role": "user", "content": question}]}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    first = 0.0
    try:
        writer.write(head.encode() + data)
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        while True:
            line = await reader.readline()
            now = 1000 * (time.perf_counter() - start)
            if b" word" in line:
                first = first or now
            if line.startswith(b"data: [DONE]"):
                return Answer(status, first, now)
            if status != 200 and line.startswith(b"{"):
                return Answer(status, now, now)
            if not line:
                return Answer(0, now, now)
    finally:
        writer.close()


async def closed_loop(port: int, questions: Iterator[str], num: int, content: str = "") -> list[Answer]:
    """`num` requests by NUM_STREAMS clients that come one after the other; each asks again when it is answered."""
    left, answers = iter(range(num)), []

    async def client(number: int) -> None:
        await asyncio.sleep(number * NUM_TOKENS * TOKEN_S / NUM_STREAMS)
        for _ in left:
            answers.append(await ask(port, next(questions), content))

    await asyncio.gather(*(client(number) for number in range(NUM_STREAMS)))
    return answers


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def new_questions(draw: random.Random) -> Iterator[str]:
    while True:
        yield f"Who is the keeper of {sentence(draw, 5)}"


def repeated_questions(draw: random.Random) -> Iterator[str]:
    known = [f"Who is the builder of {sentence(draw, 5)}" for _ in range(NUM_REPEATED)]
    while True:
        yield draw.choice(known)


async def overhead(upstream: int, proxy: int, process: psutil.Process, num: int) -> list[list[str]]:
    """Rows: bare, proxy with questions that are all new, proxy with questions that repeat."""
    draw = random.Random(SEED)
    content = "\n".join(sentence(draw, 20) for _ in range(6))  # as long as what the proxy puts there
    await closed_loop(proxy, new_questions(draw), 2 * NUM_STREAMS)
    runs = (
        ("the upstream itself", upstream, new_questions(draw), content),
        ("proxy, every question new", proxy, new_questions(draw), ""),
        (f"proxy, {NUM_REPEATED} questions repeated", proxy, repeated_questions(draw), ""),
    )
    rows: list[list[str]] = []
    bare: list[float] = []
    for name, port, questions, system in runs:
        before = sum(process.cpu_times()[:2])
        answers = await closed_loop(port, questions, num, system)
        cpu_ms = 1000 * (sum(process.cpu_times()[:2]) - before) / len(answers)
        good = [answer for answer in answers if answer.status == 200]
        times = [quantile([t(a) for a in good], q) for t in (_first, _whole) for q in (0.5, 0.99)]
        bare = bare or times
        added = [f"{t:.1f}" if times is bare else f"{t:.1f} (+{t - b:.1f})" for t, b in zip(times, bare, strict=True)]
        rows.append([name, *added, "" if times is bare else f"{cpu_ms:.1f}", str(len(answers) - len(good))])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def _first(answer: Answer) -> float:
    return answer.first_ms


def _whole(answer: Answer) -> float:
    return answer.whole_ms


async def crowd(proxy: int) -> Counter[str]:
    """1,000 requests at the same moment: HTTP status, or `hung`, -> how many."""

    async def one(number: int) -> str:
        try:
            async with asyncio.timeout(HUNG_S):
                return str((await ask(proxy, f"Who is number {number}?", "")).status)
        except TimeoutError:
            return "hung"
        except OSError as error:
            return type(error).__name__

    return Counter(await asyncio.gather(*(one(number) for number in range(CROWD))))


async def growth(proxy: int, process: psutil.Process, minutes: float) -> tuple[list[tuple[float, float]], int]:
    """(minutes since the start, MiB of the proxy) every ten seconds under load, and the requests in that time."""
    questions, samples, num = new_questions(random.Random(SEED)), [], 0
    start = time.monotonic()
    while time.monotonic() - start < WARM_UP_S + 60 * minutes:
        num += len(await closed_loop(proxy, questions, 5 * NUM_STREAMS))
        samples.append(((time.monotonic() - start) / 60, process.memory_info().rss / 2**20))
    return [sample for sample in samples if sample[0] * 60 > WARM_UP_S], num


def slope(samples: list[tuple[float, float]]) -> float:
    """MiB a minute, by least squares over the second half: the first may still fill caches."""
    half = samples[len(samples) // 2 :]
    return float(np.polyfit([at for at, _ in half], [size for _, size in half], 1)[0]) if len(half) > 1 else 0.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def processes(folder: Path) -> Iterator[tuple[int, int, psutil.Process]]:
    """Ports of upstream and proxy, and the proxy's process; both run while the block does."""
    upstream, proxy = free_port(), free_port()
    command = [sys.executable, __file__, "--folder", str(folder), "--upstream-port", str(upstream)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([*command, "--role", "upstream"], env=environment)
    second = subprocess.Popen([*command, "--role", "proxy", "--port", str(proxy)], env=environment)
    try:
        for port, process in ((upstream, first), (proxy, second)):
            _wait_for(port, process)
        yield upstream, proxy, psutil.Process(second.pid)
    finally:
        for process in (second, first):
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("a process ended before it listened; see above")
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"nobody listens on port {port}")


def report(
    rows: list[list[str]], num_requests: int, counts: Counter[str], crowd_s: float, samples: Any, num: int
) -> str:
    header = ["milliseconds", "first token p50", "first token p99", "whole p50", "whole p99", "CPU a request", "failed"]
    known = ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))
    lines = [
        "# The proxy: overhead, a crowd, growth",
        "",
        f"`python tests/benchmarks/proxy.py`, {platform.python_version()}, {os.cpu_count()} cores, load before the run "
        f"{os.getloadavg()[0]:.1f}. Upstream, proxy and client share these cores.",
        "",
        f"{NUM_STREAMS} streams at a time, {num_requests} requests a row, {NUM_TOKENS} tokens each at "
        f"{1 / TOKEN_S:.0f} tokens/s; {NUM_CHUNKS:,} chunks; in brackets what the proxy adds. "
        f"Aim for a first token: +{AIM['p50']} (p50), +{AIM['p99']} (p99).",
        "",
        table(header, rows),
        "",
        f"{CROWD:,} requests at the same moment: {known} within {crowd_s:.0f} s. 429 is the proxy's own refusal "
        "(64 at work, 256 waiting), with Retry-After.",
        "",
    ]
    if samples:
        lines += [
            f"{samples[-1][0] - samples[0][0]:.1f} minutes of the same load, {num:,} requests: {samples[0][1]:.0f} MiB "
            f"after the warm-up, {max(size for _, size in samples):.0f} at most, {samples[-1][1]:.0f} at the end; "
            f"{slope(samples):+.2f} MiB a minute over the second half.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=NUM_REQUESTS, help="a row of the first table")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load for the last measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench" / "proxy.md")
    for hidden, kind in (("--role", str), ("--port", int), ("--upstream-port", int), ("--folder", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "upstream":
        return run_upstream(options.upstream_port)
    if options.role == "proxy":
        return run_proxy(options.port, options.upstream_port, options.folder)
    with tempfile.TemporaryDirectory() as name:
        write_index(Workspace(ROOT, Path(name)))
        with processes(Path(name)) as (upstream, proxy, process):
            rows = asyncio.run(overhead(upstream, proxy, process, options.requests))
            start = time.monotonic()
            counts = asyncio.run(crowd(proxy))
            crowd_s = time.monotonic() - start
            samples, num = asyncio.run(growth(proxy, process, options.minutes)) if options.minutes else ([], 0)
        text = report(rows, options.requests, counts, crowd_s, samples, num)
    write_text(options.out, text)
    print(text)
    return None


if __name__ == "__main__":
    main()
