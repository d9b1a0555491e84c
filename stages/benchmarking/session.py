"""Asks the endpoints, one block of requests at a time, and keeps what was answered.

A block goes to each endpoint before the next block begins, and which one is first alternates: what drifts in the
machine hits both alike. Finished blocks are journalled in .cache/benchmark, so that a run that was stopped goes on
where it was; the journal of a run that was finished is deleted, and so is one that is older than a day.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.benchmarking.client import GONE, Client, EndpointGoneError
from stages.benchmarking.replies import ChatRequest, Reply, RetrieveRequest
from stages.core.fingerprint import fingerprint
from stages.synthetic.journal import Journal, open_journal

MAX_AGE_S = 24 * 3600.0  # of a journal: timings of another day are another measurement

Requests = Sequence[ChatRequest | RetrieveRequest]


@dataclass(frozen=True)
class Block:
    """Replies in the order of the requests; wall_s from the first request to the last reply.

    peak_bytes: of the server's memory meanwhile, 0 where it cannot be seen.
    """

    replies: list[Reply]
    wall_s: float
    peak_bytes: int = 0

    @property
    def whole(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.is_whole]

    @property
    def num_tokens(self) -> int:
        return sum(reply.num_tokens for reply in self.whole)


class Session:
    """`failures`: endpoint -> what went wrong -> how often, since the last `take_failures`."""

    def __init__(self, runner: asyncio.Runner, clients: Mapping[str, Client], journal: Journal, memory: Any) -> None:
        self.clients = dict(clients)
        self._runner, self._journal, self._memory = runner, journal, memory
        self._num_blocks = 0
        self._failures: dict[str, Counter[str]] = {}

    @property
    def names(self) -> list[str]:
        return list(self.clients)

    def ask(
        self,
        label: str,
        requests: Callable[[Client], Requests],
        concurrency: int,
        warm_up: int = 0,
        names: Sequence[str] = (),
    ) -> dict[str, Block]:
        """What each endpoint answers; requests: made for one, as lengths depend on its tokenizer.

        label: tells blocks of equal requests apart. warm_up: of the requests, asked before the block and not counted.
        names: of the endpoints that are asked; none given: all. Raises EndpointGoneError where one is no longer there.
        """
        asked = list(names or self.clients)
        order = asked if self._num_blocks % 2 == 0 else asked[::-1]
        self._num_blocks += 1
        found = {name: self._ask(self.clients[name], label, requests, concurrency, warm_up) for name in order}
        return {name: found[name] for name in asked}

    def _ask(
        self, client: Client, label: str, make: Callable[[Client], Requests], concurrency: int, warm_up: int
    ) -> Block:
        requests = make(client)
        key = fingerprint(client.identity, label, concurrency, [asdict(request) for request in requests])
        if key not in self._journal:
            block = self._runner.run(self._measured(client, requests, concurrency, warm_up))
            self._journal.add({key: asdict(block)})
        row = self._journal[key]
        block = Block([Reply(**reply) for reply in row["replies"]], row["wall_s"], row["peak_bytes"])
        broken = Counter(f"{reply.failure}: {reply.detail}" for reply in block.replies if not reply.is_whole)
        self._failures.setdefault(client.name, Counter()).update(broken)
        return block

    async def _measured(self, client: Client, requests: Requests, concurrency: int, warm_up: int) -> Block:
        await ask_all(client, requests[:warm_up], concurrency)
        with self._memory.watch(client.base_url) as watched:
            start_s = time.perf_counter()
            replies = await ask_all(client, requests, concurrency)
            wall_s = time.perf_counter() - start_s
        if replies and all(reply.failure in GONE for reply in replies):
            raise EndpointGoneError(f"{client.base_url}: gone: {replies[0].detail}")
        return Block(replies, wall_s, watched.peak_bytes)

    def take_failures(self) -> dict[str, Counter[str]]:
        """What went wrong since the last call."""
        failures, self._failures = self._failures, {}
        return failures


async def ask_all(client: Client, requests: Requests, concurrency: int) -> list[Reply]:
    """Each of `concurrency` clients sends the next request as soon as it has an answer (a closed loop)."""
    replies = [Reply()] * len(requests)
    todo = iter(enumerate(requests))

    async def work() -> None:
        for number, request in todo:
            replies[number] = await client.send(request)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(requests))):
            group.create_task(work())
    return replies


@contextmanager
def kept_blocks(folder: Path, *key: Any) -> Iterator[Journal]:
    """The journal of runs with this key; deleted when the block ends without an error. One run at a time has it."""
    name = fingerprint(*key)[:16]
    path = folder / f"{name}.jsonl"
    if path.exists() and time.time() - path.stat().st_mtime > MAX_AGE_S:
        path.unlink()
    with open_journal(folder, name) as journal:
        yield journal
        path.unlink(missing_ok=True)
