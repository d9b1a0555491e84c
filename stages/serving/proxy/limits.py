"""How much work is taken on: requests at once, requests waiting, bytes of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from stages.serving.proxy.errors import ApiError
from stages.serving.proxy.settings import Limits

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gate:
    """Lets `max_concurrent` requests work and `max_queue` wait; the others are refused with 429."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.max_concurrent)
        self.num_active = self.num_waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Waits for a place. ApiError (429): the queue is full, or the wait too long."""
        await self._enter()
        self.num_active += 1
        try:
            yield
        finally:
            self.num_active -= 1
            self._places.release()

    async def _enter(self) -> None:
        if self._places.locked() and self.num_waiting >= self._limits.max_queue:
            raise ApiError(429, "queue_full", "too many requests are waiting; try again later")
        self.num_waiting += 1
        try:
            async with asyncio.timeout(self._limits.queue_timeout_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise ApiError(429, "queue_timeout", "no place became free in time; try again later") from error
        finally:
            self.num_waiting -= 1


async def read_body(receive: Receive, length: str | None, limits: Limits) -> bytes:
    """A request's body. ApiError: 413 beyond max_body_bytes, 408 where it does not come in time; ConnectionError where
    the client has gone."""
    if length is not None and length.isdecimal() and int(length) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client has gone")
                body += message.get("body", b"")
                if len(body) > limits.max_body_bytes:
                    raise _too_large(limits)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise ApiError(408, "body_timeout", "the request did not arrive in time") from error


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, "body_too_large", f"the request is larger than {limits.max_body_bytes} bytes")
