"""What stands before every request: whose it is, its body, its end when the client leaves, and its line in the counts.

An ASGI application around another one. A request whose client has gone is cancelled, whatever it is doing: that is
how an upstream stops writing for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stages.serving.proxy.auth import Keys, Visitors
from stages.serving.proxy.errors import CLIENT_GONE, ApiError
from stages.serving.proxy.limits import read_body
from stages.serving.proxy.settings import Limits
from stages.serving.proxy.stats import Stats

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOG = logging.getLogger("groundtune.serve")
OPEN_PATHS = ("/health", "/docs", "/openapi.json")  # without a key
STATIC = "/docs/"


class Doorkeeper:
    """endpoints: paths that are counted by name."""

    def __init__(
        self, app: App, keys: Keys, visitors: Visitors, limits: Limits, stats: Stats, endpoints: frozenset[str]
    ) -> None:
        self.app, self.keys, self.visitors, self.limits, self.stats = app, keys, visitors, limits, stats
        self.endpoints = endpoints

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(send, self.limits.client_timeout_s)
        start_s = time.monotonic()
        try:
            await self._serve(scope, receive, exchange)
        except ApiError as error:
            await exchange.refuse(error)
        except ConnectionError:
            exchange.status = CLIENT_GONE
        except Exception as error:
            LOG.exception("%s failed", scope["path"])
            if not exchange.is_complete:
                raise ConnectionAbortedError from error
        finally:
            path = scope["path"] if scope["path"] in self.endpoints else "other"
            self.stats.answered(path, exchange.status or CLIENT_GONE, time.monotonic() - start_s)

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, exchange: Exchange) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.visitors.check(headers)
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(STATIC)
        if not is_open and not self.keys.is_client(headers.get("authorization", "")):
            raise ApiError(401, "invalid_api_key", "give the server's key: Authorization: Bearer KEY")
        scope["groundtune.is_admin"] = self.keys.is_admin(headers.get("authorization", ""))
        body = b""
        if scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise ApiError(415, "not_json", "send JSON: Content-Type: application/json")
            body = await read_body(receive, headers.get("content-length"), self.limits)
        await _while_client_stays(self.app, scope, body, receive, exchange)


class Exchange:
    """The answer as it goes out. status: 0 before it has begun."""

    def __init__(self, send: Send, client_timeout_s: float) -> None:
        self._send, self._timeout_s = send, client_timeout_s
        self._sending_since: float | None = None
        self.status = 0
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self.is_complete = True
        self._sending_since = time.monotonic()
        await self._send(message)
        self._sending_since = None

    @property
    def patience_s(self) -> float:
        """How long the client may go on taking nothing; below 0 it has taken too long."""
        if self._sending_since is None:
            return self._timeout_s
        return self._timeout_s - (time.monotonic() - self._sending_since)

    async def refuse(self, error: ApiError) -> None:
        """Raises TimeoutError where the client does not take it in time."""
        from starlette.responses import JSONResponse

        response = JSONResponse(error.body(), error.status, error.headers)
        async with asyncio.timeout(self._timeout_s):
            await response({"type": "http"}, _nothing, self.send)


async def _while_client_stays(
    app: App, scope: MutableMapping[str, Any], body: bytes, receive: Receive, exchange: Exchange
) -> None:
    """Runs the application on a request whose body has been read; cancels it when the client leaves.

    Raises ConnectionError where it left, or took nothing for too long. One look after each `patience_s`, as a timeout
    around each piece of a stream would cost as much as the piece.
    """
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.Future()  # that the client leaves is looked after here

    work = asyncio.ensure_future(app(scope, replay, exchange.send))
    watch = asyncio.ensure_future(_until_gone(receive))
    try:
        while not work.done() and not watch.done() and (patience_s := exchange.patience_s) > 0:
            await asyncio.wait([work, watch], timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if watch.done() and exchange.is_complete:  # uvicorn says "disconnect" then, too
            await asyncio.wait([work])
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.wait([work, watch])
    if work.cancelled():
        raise ConnectionAbortedError("the client has gone")
    work.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing() -> Message:
    return await asyncio.Future()
