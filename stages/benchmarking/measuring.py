"""Runs the chosen benchmarks over the endpoints, one after the other.

What cannot be measured (no index, no test question) is noted and the others go on. A run that is stopped, or that loses
its server, reports what it has; the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from stages.benchmarking.client import Abilities, Client, EndpointGoneError, open_client
from stages.benchmarking.coherence import measure_coherence
from stages.benchmarking.context import measure_context
from stages.benchmarking.invented_story import text_of
from stages.benchmarking.own_server import own_server
from stages.benchmarking.pipeline import measure_pipeline
from stages.benchmarking.results import Section
from stages.benchmarking.retrieval import measure_retrieval
from stages.benchmarking.server_memory import ServerMemory
from stages.benchmarking.session import Session, kept_blocks
from stages.benchmarking.settings import Config
from stages.benchmarking.throughput import measure_throughput
from stages.benchmarking.writing import measure_writing
from stages.core.errors import DataError
from stages.core.workspace import Workspace

PROBE_CHARS = (100, 600)  # short enough for every model, far enough apart to tell tokens per character


@dataclass(frozen=True)
class MeasuredEndpoint:
    """An endpoint as it was measured; base_url "" for our own server."""

    base_url: str
    model: str
    can: Abilities


@dataclass
class Benchmark:
    """sections: benchmark -> what was found. skipped: benchmark -> why not. stopped: why the run ended early."""

    endpoints: dict[str, MeasuredEndpoint] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


def measure(config: Config, workspace: Workspace) -> Benchmark:
    """Raises DataError where no endpoint can be measured, or nothing at all could be."""
    found = Benchmark()
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        clients = stack.enter_context(_clients(runner, config, workspace))
        found.endpoints = {
            c.name: MeasuredEndpoint("" if c.endpoint.is_own else c.base_url, c.model, c.can) for c in clients.values()
        }
        try:
            key = (asdict(config)["endpoints"], _state(config, workspace))
            with kept_blocks(workspace.cache("benchmark"), *key) as journal:
                _run_all(found, Session(runner, clients, journal, ServerMemory()), config, workspace)
        except KeyboardInterrupt:
            found.stopped = "interrupted"
        except EndpointGoneError as error:
            found.stopped = str(error)
    if not found.sections:
        reasons = [found.stopped] if found.stopped else [f"{name}: {why}" for name, why in found.skipped.items()]
        raise DataError("nothing was measured\n" + "\n".join(reasons))
    return found


def _run_all(found: Benchmark, session: Session, config: Config, workspace: Workspace) -> None:
    measures: Mapping[str, Callable[[], Section]] = {
        "throughput": partial(measure_throughput, session, config),
        "context": partial(measure_context, session, config),
        "writing": partial(measure_writing, session, config, workspace),
        "coherence": partial(measure_coherence, session, config),
        "retrieval": partial(measure_retrieval, session, config, workspace),
        "pipeline": partial(measure_pipeline, session, config, workspace),
    }
    for name in config.chosen:
        print(f"benchmark {name}", file=sys.stderr)
        try:
            found.sections[name] = measures[name]()
            found.sections[name].failures = session.take_failures()
        except EndpointGoneError:
            raise
        except DataError as error:
            session.take_failures()
            found.skipped[name] = str(error)
            print(f"benchmark {name}: not measured: {error}", file=sys.stderr)


@contextmanager
def _clients(runner: asyncio.Runner, config: Config, workspace: Workspace) -> Iterator[dict[str, Client]]:
    """Clients of all endpoints, probed; our own server runs meanwhile where one of them is it."""
    with ExitStack() as stack:
        needs_own = any(endpoint.is_own for endpoint in config.endpoints.values())
        own_url = stack.enter_context(own_server(workspace)) if needs_own else ""
        connections = AsyncExitStack()
        stack.callback(lambda: runner.run(connections.aclose()))
        clients = {}
        for name, endpoint in config.endpoints.items():
            opened = open_client(name, endpoint, endpoint.base_url or own_url, config.timeout_s)
            clients[name] = runner.run(connections.enter_async_context(opened))
            runner.run(_get_to_know(clients[name], config.seed))
        yield clients


async def _get_to_know(client: Client, seed: int) -> None:
    await client.find_model()
    short, long = (text_of(seed, "probe", num_chars) for num_chars in PROBE_CHARS)
    await client.probe((short, long))


def _state(config: Config, workspace: Workspace) -> Any:
    """What the answers of our own server depend on besides the configuration: its files, by size and time."""
    if not any(endpoint.is_own for endpoint in config.endpoints.values()):
        return []
    folders = (workspace.inputs / kind / config.chat.domain for kind in ("models", "data"))
    files = sorted(path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
