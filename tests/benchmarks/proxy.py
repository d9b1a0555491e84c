"""What the proxy costs, how it takes a crowd, and whether it grows.

    python tests/benchmarks/proxy.py                  overhead, 1,000 connections, ten minutes of load
    python tests/benchmarks/proxy.py --minutes 1

A scripted upstream that writes 48 tokens at 50 tokens/s a stream, a proxy for each store over an index of 10,000 chunks
(random vectors; questions are really embedded) of which one at a time has work, this client, and nothing else that
should run beside them.
Needs models/base/tiny (`dvc checkout`, or `dvc repro base_model`). Writes reports/bench/proxy.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import uvloop
from pipeline import commit, hardware
from streams import NUM_TOKENS, TOKEN_S, Answer, ask, closed_loop, serve_words

from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.stage import load_section, read_params
from stages.core.workspace import ROOT, Workspace
from stages.evaluation.markdown import table
from stages.serving.proxy.stats import quantiles

SEED = 13
NUM_CHUNKS = 10_000
NUM_STREAMS = 32
NUM_REQUESTS = 640
NUM_ROUNDS = 5  # in which the rows take turns
NUM_REPEATED = 20  # distinct questions where they repeat
CROWD = 1000
HUNG_S = 90.0
SAMPLE_S = 10.0
IDLE_S = 12.0  # until idle connections are closed
SYLLABLES = [a + b for a in "bdgklmnprst" for b in "aeiou"]
STORES = ("chroma", "faiss")  # the first one is what ships, and takes the crowd and the ten minutes
AIM = {"p50": 10, "p99": 40}
GROWTH_AT = (2, 5, 10)  # minutes


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


def run_proxy(port: int, upstream_port: int, folder: Path, store: str) -> None:
    """`groundtune serve` with the shipped settings, but for these."""
    from stages.serving.proxy.server import serve
    from stages.serving.proxy.service import Service
    from stages.serving.proxy.settings import Config

    chat = {**load_section("chat"), "domain": "bench", "kinds": ["book"], "max_distance": 2.0, "styles": []}
    chat["retrieval"] = {**chat["retrieval"], "store": store}
    settings = {
        **load_section("serve"),
        "port": port,
        "domains": ["bench"],
        "upstreams": {"server": {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1"}},
        "models": {"bench": {"upstream": "server"}},
    }
    service = Service(parse_section(Config, settings, "serve"), lambda _: chat, None, Workspace(ROOT, folder))
    start = service.start

    async def start_and_listen() -> None:
        count = folder / "num_tasks"
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGUSR1, lambda: write_text(count, str(len(asyncio.all_tasks())))
        )
        await start()

    service.start = start_and_listen  # type: ignore[method-assign]  # the real one, and a way to count tasks from outside
    serve(service)


def bodies(questions: Iterator[str], content: str = "") -> Iterator[bytes]:
    """Requests. content: of a system message, for the bare upstream."""
    system = [{"role": "system", "content": content}] if content else []
    for question in questions:
        messages = [*system, {"role": "user", "content": question}]
        yield json.dumps({"model": "bench", "stream": True, "messages": messages}).encode()


def new_questions(draw: random.Random) -> Iterator[str]:
    while True:
        yield f"Who is the keeper of {sentence(draw, 5)}"


def repeated_questions(draw: random.Random) -> Iterator[str]:
    known = [f"Who is the builder of {sentence(draw, 5)}" for _ in range(NUM_REPEATED)]
    while True:
        yield draw.choice(known)


@dataclass
class Row:
    """One way to ask, and what came of it over all rounds. process: which answers."""

    name: str
    process: str
    port: int
    bodies: Iterator[bytes]
    answers: list[Answer] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_s: Counter[str] = field(default_factory=Counter)

    async def run(self, num: int, processes: dict[str, psutil.Process]) -> None:
        before, start_s = cpu_s(processes), time.monotonic()
        self.answers += await closed_loop(self.port, self.bodies, NUM_STREAMS, num)
        self.elapsed_s += time.monotonic() - start_s
        self.cpu_s.update(cpu_s(processes) - before)
        print(f"{self.name}: {self.figures()}, CPU {self.cpu_ms(self.process):.1f} ms a request", flush=True)

    def figures(self) -> dict[str, float]:
        """Milliseconds."""
        good = [answer for answer in self.answers if answer.is_whole]
        times = {
            "first": [answer.words_s[0] for answer in good],
            "gap": [gap for answer in good for gap in answer.gaps_s],
            "whole": [answer.whole_s for answer in good],
        }
        return {f"{name} {q}": 1000 * quantiles(values).get(q, 0) for name, values in times.items() for q in AIM}

    def cpu_ms(self, process: str) -> float:
        return 1000 * self.cpu_s[process] / max(1, len(self.answers))

    def cells(self, bare: Row) -> list[str]:
        mine, other = self.figures(), bare.figures()
        added = [f"{mine[key]:.1f} ({mine[key] - other[key]:+.1f})" for key in mine]
        plain = [f"{value:.1f}" for value in mine.values()]
        failed = sum(not answer.is_whole for answer in self.answers)
        cpu = "" if self is bare else f"{self.cpu_ms(self.process):.1f}"
        load = f"{len(self.answers) / max(1e-9, self.elapsed_s):.0f}"
        return [self.name, load, *(plain if self is bare else added), cpu, str(failed)]


def cpu_s(processes: dict[str, psutil.Process]) -> Counter[str]:
    """Seconds of CPU by process."""
    return Counter({name: sum(process.cpu_times()[:2]) for name, process in processes.items()})


async def overhead(ports: dict[str, int], processes: dict[str, psutil.Process], num: int) -> list[Row]:
    """The upstream itself, each proxy with questions that are all new, and with questions that repeat; in turns."""
    draw = random.Random(SEED)
    content = "\n".join(sentence(draw, 20) for _ in range(6))  # as long as what the proxy puts there
    rows = [Row("the upstream itself", "upstream", ports["upstream"], bodies(new_questions(draw), content))]
    ways = {"every question new": new_questions, f"{NUM_REPEATED} questions repeated": repeated_questions}
    for store in STORES:
        rows += [Row(f"proxy, {store}, {way}", store, ports[store], bodies(asked(draw))) for way, asked in ways.items()]
        await closed_loop(ports[store], bodies(new_questions(draw)), NUM_STREAMS, 4 * NUM_STREAMS)
    for _ in range(NUM_ROUNDS):
        for row in rows:
            await row.run(max(NUM_STREAMS, num // NUM_ROUNDS), processes)
    return rows


async def crowd(proxy: int) -> Counter[str]:
    """1,000 requests at the same moment: HTTP status, or `hung`, or `cut` -> how many."""
    numbered = bodies(f"Who is number {number}?" for number in range(CROWD))

    async def one() -> str:
        try:
            async with asyncio.timeout(HUNG_S):
                answer = await ask(proxy, next(numbered))
        except TimeoutError:
            return "hung"
        except OSError as error:
            return type(error).__name__
        return str(answer.status) if answer.is_whole or answer.status > 200 else "cut"

    return Counter(await asyncio.gather(*(one() for _ in range(CROWD))))


@dataclass(frozen=True)
class Held:
    """What the proxy holds while nobody asks."""

    num_sockets: int
    num_tasks: int
    num_threads: int

    @classmethod
    async def by(cls, process: psutil.Process, folder: Path) -> Held:
        await asyncio.sleep(IDLE_S)
        count = folder / "num_tasks"
        count.unlink(missing_ok=True)
        process.send_signal(signal.SIGUSR1)
        while not count.exists():
            await asyncio.sleep(0.1)
        return cls(len(process.net_connections("tcp")), int(count.read_text()), process.num_threads())

    def __str__(self) -> str:
        return f"{self.num_sockets} sockets, {self.num_tasks} tasks, {self.num_threads} threads"


@dataclass
class Growth:
    """samples: (minutes under load, MiB of the proxy)."""

    before: Held
    after: Held
    num_requests: int
    num_failed: int
    samples: list[tuple[float, float]]

    def report(self) -> list[str]:
        last_min, last = self.samples[-1]
        marks = [min(self.samples, key=lambda sample: abs(sample[0] - at)) for at in GROWTH_AT if at <= last_min + 0.2]
        sizes = ", ".join(f"{size:.0f} MiB after {at:.1f} minutes" for at, size in [*marks, (last_min, last)])
        warm = [sample for sample in self.samples if sample[0] >= min(GROWTH_AT[0], last_min / 2)]
        slope = np.polyfit([at for at, _ in warm], [size for _, size in warm], 1)[0] if len(warm) > 1 else 0.0
        return [
            f"{last_min:.1f} minutes of new questions by {NUM_STREAMS} streams, {self.num_requests:,} requests, "
            f"{self.num_failed} failed: resident memory {sizes}; {slope:+.2f} MiB a minute (least squares from minute "
            f"{warm[0][0]:.1f} on).",
            "",
            f"Held when idle: before {self.before}; after {self.after}.",
            "",
        ]


async def growth(proxy: int, process: psutil.Process, folder: Path, minutes: float) -> Growth:
    """The proxy's memory every ten seconds under load, and what it holds before and after."""
    before, samples, start_s = await Held.by(process, folder), list[tuple[float, float]](), time.monotonic()
    asking = bodies(new_questions(random.Random(SEED)))
    load = asyncio.ensure_future(closed_loop(proxy, asking, NUM_STREAMS, seconds=60 * minutes))
    while not load.done():
        await asyncio.wait([load], timeout=SAMPLE_S)
        samples.append(((time.monotonic() - start_s) / 60, process.memory_info().rss / 2**20))
        if len(samples) % 3 == 0:
            print(f"{samples[-1][0]:.1f} minutes of load: {samples[-1][1]:.0f} MiB", flush=True)
    answers = load.result()
    num_failed = sum(not answer.is_whole for answer in answers)
    return Growth(before, await Held.by(process, folder), len(answers), num_failed, samples)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def processes(folder: Path) -> Iterator[tuple[dict[str, int], dict[str, psutil.Process]]]:
    """The upstream, and a proxy by the name of each store: their ports and processes; all run while the block does."""
    ports = {name: free_port() for name in ("upstream", *STORES)}
    command = [sys.executable, __file__, "--folder", str(folder), "--upstream-port", str(ports["upstream"])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, port in ports.items():
            role = ["upstream"] if name == "upstream" else ["proxy", "--port", str(port), "--store", name]
            started[name] = subprocess.Popen([*command, "--role", *role], env=environment)
            _wait_for(port, started[name])
        running = {name: psutil.Process(process.pid) for name, process in started.items()}
        yield ports, {"client": psutil.Process(), **running}
    finally:
        for process in started.values():
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


HEADER = ("milliseconds", "requests/s", "first token p50", "p99", "between tokens p50", "p99", "whole p50", "p99")


def report(revision: str, command: str, load: float, rows: list[Row], crowd_line: str, growing: Growth | None) -> str:
    bare, new = rows[:2]
    gear = " and ".join(f"{new.cpu_ms(name):.1f} ms by the {name}" for name in ("client", "upstream"))
    lines = [
        "# The proxy: overhead, a crowd, growth",
        "",
        f"`{command}` at commit {revision}, {hardware()}, load before the run {load:.1f}. Upstream, proxy and client "
        "share these cores.",
        "",
        f"{NUM_STREAMS} streams at a time (each client asks again as soon as it is answered), {len(bare.answers)} "
        f"requests a row in {NUM_ROUNDS} turns, {NUM_TOKENS} tokens each at {1 / TOKEN_S:.0f} tokens/s; {NUM_CHUNKS:,} "
        "chunks; in brackets what the proxy adds, percentile less percentile. A percentile q of n values is number "
        "floor(q n), counted from 0 in ascending order. Aim for a first token: "
        f"{AIM['p50']:+} (p50), {AIM['p99']:+} (p99).",
        "",
        table([*HEADER, "CPU of the proxy a request", "failed"], [row.cells(bare) for row in rows]),
        "",
        f"The measuring itself took {gear} a request.",
        "",
        crowd_line,
        "",
        *(growing.report() if growing else []),
    ]
    return "\n".join(lines)


async def measure(options: argparse.Namespace, folder: Path, command: str) -> str:
    revision, load = commit(), os.getloadavg()[0]
    with processes(folder) as (ports, running):
        rows, shipped = await overhead(ports, running, options.requests), ports[STORES[0]]
        start = time.monotonic()
        counts = await crowd(shipped)
        known = ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))
        crowd_line = (
            f"{CROWD:,} requests at the same moment: {known} within {time.monotonic() - start:.0f} s. 429 is the "
            "proxy's own refusal (64 at work, 256 waiting), with Retry-After."
        )
        print(crowd_line, flush=True)
        growing = await growth(shipped, running[STORES[0]], folder, options.minutes) if options.minutes else None
    return report(revision, command, load, rows, crowd_line, growing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=NUM_REQUESTS, help="a row of the first table")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load for the last measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench" / "proxy.md")
    for hidden, kind in (
        ("--role", str),
        ("--store", str),
        ("--port", int),
        ("--upstream-port", int),
        ("--folder", Path),
    ):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "upstream":
        return serve_words(options.upstream_port)
    if options.role == "proxy":
        return run_proxy(options.port, options.upstream_port, options.folder, options.store)
    command = " ".join(["python tests/benchmarks/proxy.py", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as name:
        write_index(Workspace(ROOT, Path(name)))
        text = uvloop.run(measure(options, Path(name), command))
    write_text(options.out, text)
    print(text)
    return None


if __name__ == "__main__":
    main()
