"""An OpenAI-compatible server as upstream: vLLM, Ollama, llama.cpp's server, transformers serve.

Always asked for a stream, so that one path serves both kinds of request and a client that leaves stops the work.
What it says about its errors stays here: a client gets our own words, with

    429 it is busy        502 it failed, broke off or wrote nonsense        503 it cannot be reached        504 too slow
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stages.core.errors import ConfigError
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.event_stream import EventReader
from stages.serving.proxy.settings import Upstream as Settings
from stages.serving.proxy.settings import key_from
from stages.serving.proxy.upstream import Job, Piece

if TYPE_CHECKING:
    import httpx

FINISH_REASONS = ("stop", "length", "content_filter")
KEEP_S = 4.0  # of an idle connection: servers close theirs after 5
DRAIN_S = 0.2  # after [DONE], for the connection to be used again
MAX_RETRY_AFTER_S = 3600
MAX_ERROR_BYTES = 65_536


class OpenAIUpstream:
    """One pool of connections. Raises ConfigError where the variable that should hold the key is not set."""

    def __init__(self, settings: Settings) -> None:
        import httpx
        from httpx_aiohttp import AiohttpTransport

        self.settings = settings
        self.takes_images = settings.images
        headers = {"Accept-Encoding": "identity"}  # events that are compressed come late
        if settings.api_key_env:
            key = key_from(settings.api_key_env)
            if not key:
                raise ConfigError(f"{settings.api_key_env} is not set; it should hold the key of {settings.base_url}")
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx.Limits(max_connections=0, keepalive_expiry=KEEP_S)  # 0: as many as there are requests
        self.client = httpx.AsyncClient(
            base_url=settings.base_url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
            transport=AiohttpTransport(limits=limits, trust_env=False),
            trust_env=False,
        )

    async def close(self) -> None:
        await self.client.aclose()

    async def renderer(self, model: str) -> None:
        return None

    async def stream(self, job: Job) -> AsyncGenerator[Piece, None]:
        """Raises ApiError, also in mid-stream. A server that knows no `n` is asked again for each further choice."""
        missing = set(range(job.sampling.num_choices))
        async with aclosing(self._answer(job)) as pieces:
            async for piece in pieces:
                missing -= {piece.index} if piece.finish_reason else set()
                yield piece
        for index in sorted(missing):
            async with aclosing(self._answer(_choice_of(job, index))) as pieces:
                async for piece in pieces:
                    yield replace(piece, index=index)

    async def _answer(self, job: Job) -> AsyncGenerator[Piece, None]:
        import aiohttp
        import httpx

        watch, answer = _Watch(self.settings), _Answer(job.sampling.num_choices)
        try:
            request = self.client.build_request("POST", "chat/completions", json=self._body(job))
            async with aclosing(await self.client.send(request, stream=True)) as response, watch.over(response):
                await _check(response)
                async with aclosing(response.aiter_raw()) as chunks:  # type: ignore[type-var]  # a generator
                    async for chunk in chunks:
                        watch.pause()
                        for piece in answer.read(chunk):
                            yield piece
                        watch.listen()
                        if answer.is_done:
                            break
                    answer.check_complete()
                    await _drain(chunks)
        except (httpx.TransportError, aiohttp.ClientError, TimeoutError) as error:
            raise _transport_error(error) from error

    def _body(self, job: Job) -> dict[str, Any]:
        sampling = job.sampling
        body = {
            "model": job.model,
            "messages": job.messages,
            "stream": True,
            "stream_options": {"include_usage": True} if self.settings.stream_usage else None,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": sampling.num_choices if sampling.num_choices > 1 else None,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
        return {key: value for key, value in body.items() if value is not None}


def _choice_of(job: Job, index: int) -> Job:
    """The same for choice `index` alone."""
    seed = job.sampling.seed
    alone = replace(job.sampling, num_choices=1, seed=None if seed is None else (seed + index) % 2**63)
    return replace(job, sampling=alone)


class _Watch:
    """Closes a response that is silent for too long, or goes on for too long: who reads it gets TimeoutError.

    One timer for all of it, as a timeout around each chunk would cost as much as the chunk. aiohttp's own for silence
    stays off once a body's framing is broken (3.14), and the reader would wait forever.
    """

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_s = settings.read_timeout_s
        self._deadline = self._loop.time() + settings.total_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._closing: list[asyncio.Task[None]] = []
        self._listening_since: float | None = None

    def listen(self) -> None:
        """From now on something is waited for."""
        self._listening_since = self._loop.time()

    def pause(self) -> None:
        """Now the client is waited for."""
        self._listening_since = None

    @asynccontextmanager
    async def over(self, response: httpx.Response) -> AsyncIterator[None]:
        self.listen()
        self._look(response)
        try:
            yield
        except Exception as error:
            if self._closing:
                raise TimeoutError from error
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await asyncio.gather(*self._closing)

    def _look(self, response: httpx.Response) -> None:
        now = self._loop.time()
        since = now if self._listening_since is None else self._listening_since
        limit = min(self._deadline, since + self._silence_s)
        if now < limit:
            self._timer = self._loop.call_at(limit, self._look, response)
        else:
            self._closing.append(self._loop.create_task(response.aclose()))


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Reads what comes after [DONE], so that the connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in chunks:
                pass


class _Answer:
    """The pieces of an event stream."""

    def __init__(self, num_choices: int) -> None:
        self.is_done = False
        self._events, self._num_choices = EventReader(), num_choices
        self._begun, self._finished = set[int](), set[int]()

    def read(self, chunk: bytes) -> Iterator[Piece]:
        """Up to [DONE]. Raises ApiError for an event that tells of an error, and for what is no event."""
        try:
            for event in self._events.feed(chunk):
                if event is None:
                    self.is_done = True
                    return
                for piece in _read_event(event, self._num_choices):
                    if piece.text or piece.finish_reason:
                        self._begun.add(piece.index)
                    if piece.finish_reason:
                        self._finished.add(piece.index)
                    yield piece
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ApiError(502, "upstream_garbage", "the model's server sent something that is no answer") from error

    def check_complete(self) -> None:
        """Raises ApiError where a choice that was begun has no end."""
        if not self._finished or self._finished != self._begun:
            raise ApiError(502, "upstream_cut", "the model's server broke off")


def _read_event(event: dict[str, Any], num_choices: int) -> Iterator[Piece]:
    """Raises ApiError for an error, and what a wrong shape raises (ValueError, TypeError, KeyError ...)."""
    if event.get("error") is not None:
        raise ApiError(502, "upstream_error", "the model's server failed while it answered")
    for choice in event["choices"]:
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        text = (choice.get("delta") or {}).get("content") or ""
        if not isinstance(text, str) or index not in range(num_choices) or reason not in (None, *FINISH_REASONS):
            raise ValueError("not a choice that was asked for")
        if text or reason:
            yield Piece(text, index, reason)
    if usage := event.get("usage"):
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        yield Piece(num_prompt_tokens=counts[0], num_completion_tokens=counts[1])


async def _check(response: httpx.Response) -> None:
    """Raises ApiError for any answer but an event stream."""
    status = response.status_code
    if status == 200:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise ApiError(502, "upstream_garbage", "the model's server sent something that is no stream")
        return
    if status == 429 or (status == 503 and "retry-after" in response.headers):
        raise ApiError(429, "upstream_busy", "the model's server is busy", retry_after_s=_retry_after_s(response))
    if status in (400, 413, 422):
        raise await _refusal(response)
    raise ApiError(502, "upstream_error", f"the model's server answered with an error ({status})")


async def _refusal(response: httpx.Response) -> ApiError:
    """Why a server takes no request is not passed on, but for the one reason that a client can mend."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    words = bytes(body[:MAX_ERROR_BYTES]).decode("utf-8", "replace").lower()
    if "context" in words and ("length" in words or "size" in words or "window" in words):
        return invalid("the prompt is too long for the model", "messages", "context_length_exceeded")
    return invalid("the model's server refused the request", None, "upstream_refused")


def _retry_after_s(response: httpx.Response) -> int:
    value = response.headers.get("retry-after", "")
    return min(int(value), MAX_RETRY_AFTER_S) if value.isdecimal() and len(value) < 10 else 1


def _transport_error(error: Exception) -> ApiError:
    """By what aiohttp says: httpx_aiohttp calls any lost connection a timeout."""
    import aiohttp

    cause = error if isinstance(error, TimeoutError) else error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorError):
        return ApiError(503, "upstream_unreachable", "the model's server cannot be reached")
    if isinstance(cause, TimeoutError):
        return ApiError(504, "upstream_timeout", "the model's server takes too long")
    return ApiError(502, "upstream_gone", "the model's server broke the connection")
