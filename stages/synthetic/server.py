"""Many requests to a server: concurrently, within a rate, again after a failure, and none twice.

A request that failed for a passing reason is asked again after an exponential back-off with jitter, and not before the
time that the server names in Retry-After. The run ends when one has failed `max_attempts` times; what was answered
until then, and what was still under way, is in the journal.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import fingerprint
from stages.core.progress import track
from stages.synthetic.chat_completions import ChatCompletions, FatalError, RefusedError, TransientError
from stages.synthetic.journal import Journal, open_journal
from stages.synthetic.requests import Reply, Request
from stages.synthetic.settings import Provider

MAX_BACKOFF_S = 60.0


class Server:
    """The model of a provider of kind `openai`."""

    def __init__(self, provider: Provider, cache: Path) -> None:
        self._provider = provider
        self._cache = cache
        self._key = _api_key(provider)

    @property
    def name(self) -> str:
        """Of the model, as it stands in the pairs."""
        return self._provider.model

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply for each request, in their order. Raises DataError when the server cannot be used."""
        keys = [self.request_key(request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        where = fingerprint(self._provider.base_url, self._provider.model)[:16]
        with open_journal(self._cache, where) as journal:
            pending = {key: request for key, request in wanted.items() if key not in journal}
            failed = self._ask(pending, journal, len(wanted)) if pending else {}
            return [failed[key] if key in failed else Reply(**journal[key]) for key in keys]

    def request_key(self, request: Request, sample: int = 0) -> str:
        """Of all that can change the answer. sample: where the same request is to be answered more than once."""
        provider = self._provider
        settings = (provider.base_url, provider.model, provider.temperature, provider.max_tokens)
        return fingerprint(*settings, provider.response_format, provider.extra, request, sample)

    def _ask(self, pending: Mapping[str, Request], journal: Journal, num_wanted: int) -> dict[str, Reply]:
        asked = _Run(self._provider, self._key, journal)
        try:
            asyncio.run(asked.ask(pending))
        except FatalError as error:
            num_done = num_wanted - len(pending) + asked.num_answered
            raise DataError(
                f"{self._provider.base_url}: {error}\n{num_done} of {num_wanted} requests are done and kept; "
                "run the same command again to ask for the others only"
            ) from None
        if len(asked.failed) == num_wanted:
            message = next(iter(asked.failed.values())).error
            raise DataError(f"{self._provider.base_url}: takes no request; the first answer: {message}")
        return asked.failed


class _Run:
    """Workers take requests from one queue until it is empty or one of them cannot go on."""

    def __init__(self, provider: Provider, key: str, journal: Journal) -> None:
        self._provider = provider
        self._server = ChatCompletions(provider, key)
        self._journal = journal
        self._fatal = ""
        self._next_start = 0.0  # monotonic seconds
        self._paused_until = 0.0
        self.failed: dict[str, Reply] = {}
        self.num_answered = 0

    async def ask(self, pending: Mapping[str, Request]) -> None:
        """Fills the journal and `failed`. Raises FatalError after the requests that were under way have ended."""
        todo = iter(pending.items())
        bar = track(range(len(pending)), f"asking {self._provider.model}", len(pending))
        async with self._server.client:
            num_workers = min(self._provider.max_concurrent, len(pending))
            await asyncio.gather(*(self._work(todo, bar) for _ in range(num_workers)))
        if self._fatal:
            raise FatalError(self._fatal)

    async def _work(self, todo: Iterator[tuple[str, Request]], bar: Iterator[int]) -> None:
        for key, request in todo:
            try:
                reply = await self._insist(request)
            except FatalError as error:
                self._fatal = self._fatal or str(error)
                return
            except RefusedError as error:
                self.failed[key] = Reply(error=str(error))
            else:
                self._journal.add({key: asdict(reply)})
                self.num_answered += 1
            next(bar, None)
            if self._fatal:
                return

    async def _insist(self, request: Request) -> Reply:
        last = ""
        for attempt in range(self._provider.max_attempts):
            if attempt:
                backoff_s = min(MAX_BACKOFF_S, self._provider.backoff_s * 2 ** (attempt - 1))
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            await self._wait_for_turn()
            if self._fatal:
                raise FatalError(self._fatal)
            try:
                return await self._server.send(request)
            except TransientError as error:
                last = str(error)
                self._paused_until = max(self._paused_until, time.monotonic() + error.after_s)
        raise FatalError(f"a request failed {self._provider.max_attempts} times, the last time: {last}")

    async def _wait_for_turn(self) -> None:
        """Starts are spaced by the rate; all of them wait while the server has asked for a pause."""
        per_minute = self._provider.requests_per_minute
        start = max(self._next_start, time.monotonic())
        self._next_start = start + (60 / per_minute if per_minute else 0.0)
        while (left := max(start, self._paused_until) - time.monotonic()) > 0:
            await asyncio.sleep(left)


def _api_key(provider: Provider) -> str:
    if not provider.api_key_env:
        return ""
    key = os.environ.get(provider.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"generate_sft.provider.api_key_env: the environment has no {provider.api_key_env}; export it, or choose "
            "another provider"
        )
    return key
