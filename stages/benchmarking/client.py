"""One endpoint over HTTP: what it can do, and requests to it with the times of their answers.

    async with open_client(...) as client:
        await client.probe()                      # raises DataError where nothing can be measured
        reply = await client.send(ChatRequest(...))

A request that fails is a Reply that says so; nothing is asked again, as what fails is a result too. The key stands in
no message. Proxies of the environment are not used: they would be measured with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stages.benchmarking.replies import BrokenReplyError, ChatRequest, Reply, RetrieveRequest
from stages.benchmarking.settings import Endpoint
from stages.benchmarking.timed_answers import error_text, json_object, streamed_answer, whole_answer
from stages.core.errors import DataError

if TYPE_CHECKING:
    import httpx

SHOWN_MODELS = 20
LIMIT_KEYS = ("context_tokens", "max_model_len", "context_length", "context_window")  # ours, vLLM, others
SOURCES = "sources"  # where our server says in an answer what it found
GONE = ("unreachable",)


class EndpointGoneError(DataError):
    """Nothing answers there any more."""


@dataclass
class Abilities:
    """What a server was found to do.

    retrieves: it has /v1/retrieve. streams: text comes in pieces. counts_tokens: answers have a `usage`.
    max_context_tokens: 0 where it does not say. tokens_per_char, template_tokens: of prompts, as it counts them.
    """

    models: tuple[str, ...] = ()
    retrieves: bool = False
    streams: bool = True
    counts_tokens: bool = False
    max_context_tokens: int = 0
    tokens_per_char: float = 0.25
    template_tokens: float = 0.0


class Client:
    """See the module's docstring. `name` is the endpoint's in the report."""

    def __init__(self, name: str, endpoint: Endpoint, base_url: str, key: str, http: httpx.AsyncClient) -> None:
        self.name, self.endpoint, self.base_url, self.model = name, endpoint, base_url.rstrip("/"), endpoint.model
        self.can = Abilities()
        self._http, self._key = http, key
        self._asks_usage = True

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its results from another's."""
        base_url = "" if self.endpoint.is_own else self.base_url
        return {"base_url": base_url, "model": self.model, "extra": dict(self.endpoint.extra)}

    async def find_model(self) -> None:
        """Sets the model and its limit from /models. Raises DataError for a wrong key or an unknown model."""
        status, text = await self._get("/models")
        if status in (401, 403):
            raise DataError(f"{self.base_url}: {self._wrong_key()} ({self._hidden(text)[:100]})")
        rows = _model_rows(text) if status == 200 else []
        self.can.models = tuple(str(row["id"]) for row in rows)
        if not self.model and not rows:
            raise DataError(f"{self.base_url}: /models names none (HTTP {status}); say which with --model")
        self.model = self.model or self.can.models[0]
        if rows and self.model not in self.can.models:
            raise DataError(f"{self.base_url}: no model {self.model!r}; there {_listed(self.can.models)}")
        entry = next((row for row in rows if row["id"] == self.model), {})
        self.can.max_context_tokens = next((entry[k] for k in LIMIT_KEYS if isinstance(entry.get(k), int)), 0)
        self.can.retrieves = (await self._get("/retrieve"))[0] == 405  # it is there, for POST

    async def probe(self, texts: tuple[str, str]) -> None:
        """Sends two short prompts, and learns what the server streams and counts.

        texts: of different lengths. Raises DataError where the server answers none.
        """
        replies = [await self._first_answer(text) for text in texts]
        self.can.streams = any(reply.first_token_s is not None for reply in replies)
        self.can.counts_tokens = all(reply.num_prompt_tokens and reply.num_completion_tokens for reply in replies)
        if all(reply.num_prompt_tokens for reply in replies):
            short, long = (reply.num_prompt_tokens for reply in replies)
            self.can.tokens_per_char = max(0.01, (long - short) / (len(texts[1]) - len(texts[0])))
            self.can.template_tokens = max(0.0, short - self.can.tokens_per_char * len(texts[0]))

    async def _first_answer(self, text: str) -> Reply:
        request = ChatRequest([{"role": "user", "content": text}], max_tokens=2)
        reply = await self.send(request)
        if reply.failure in ("http_400", "http_422") and self._asks_usage:
            self._asks_usage = False  # servers that do not know stream_options
            reply = await self.send(request)
        if reply.is_whole or reply.failure == "empty":
            return replace(reply, failure="")
        if reply.failure in ("http_401", "http_403"):
            raise DataError(f"{self.base_url}: {self._wrong_key()} ({reply.detail})")
        known = f"; there {_listed(self.can.models)}" if self.can.models else ""
        raise DataError(
            f"{self.base_url}: cannot be measured: {self.model!r} answers no request ({reply.failure}: {reply.detail})"
            f"{known}"
        )

    def chars_of(self, num_tokens: int) -> int:
        """Characters of text that make a prompt of so many tokens, template included; at least 1."""
        return max(1, int((num_tokens - self.can.template_tokens) / self.can.tokens_per_char))

    async def send(self, request: ChatRequest | RetrieveRequest) -> Reply:
        """Never raises for what the server does; cancelled, it closes the connection."""
        import httpx

        start_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._http.timeout.read):  # of the whole: bytes may trickle for ever
                if isinstance(request, RetrieveRequest):
                    return await self._retrieve(request, start_s)
                return self._scrubbed(await self._chat(request, start_s))
        except BrokenReplyError as error:
            failure, detail = error.failure, error.detail
        except (TimeoutError, httpx.TimeoutException):
            failure, detail = "timeout", f"no whole answer within {self._http.timeout.read:g} s"
        except httpx.ConnectError as error:
            failure, detail = "unreachable", str(error)
        except httpx.HTTPError as error:
            failure, detail = "cut", f"{type(error).__name__} {error}"
        return Reply(failure=failure, detail=self._hidden(detail), latency_s=time.perf_counter() - start_s)

    async def _chat(self, request: ChatRequest, start_s: float) -> Reply:
        async with self._http.stream("POST", f"{self.base_url}/chat/completions", json=self._body(request)) as response:
            if response.status_code != 200:
                raise _status_error(response.status_code, await _text(response))
            key = SOURCES if self.can.retrieves else ""
            if "json" in response.headers.get("content-type", ""):
                return whole_answer(await _text(response), start_s, key)
            return await streamed_answer(response.aiter_bytes(), start_s, key)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": request.messages, "max_tokens": request.max_tokens}
        body |= {"temperature": 0, "stream": True}
        if self._asks_usage:
            body["stream_options"] = {"include_usage": True}
        if self.can.retrieves:
            body["rag"] = {"sources": request.sources} if request.sources else {"off": True}
        return body | dict(self.endpoint.extra)

    async def _retrieve(self, request: RetrieveRequest, start_s: float) -> Reply:
        body = {"query": request.question, "top_k": request.top_k, "siblings": request.siblings}
        body |= {"domain": request.domain, "max_distance": request.max_distance, "sources": request.kinds}
        response = await self._http.post(f"{self.base_url}/retrieve", json=body)
        if response.status_code != 200:
            raise _status_error(response.status_code, response.text)
        documents = json_object(response.text).get("documents")
        if not isinstance(documents, list) or not all(isinstance(row, dict) and "id" in row for row in documents):
            raise BrokenReplyError("garbage", f"no documents: {response.text}")
        return Reply(latency_s=time.perf_counter() - start_s, documents=documents)

    async def _get(self, path: str) -> tuple[int, str]:
        """(status, text). Raises EndpointGoneError where nothing answers."""
        import httpx

        try:
            response = await self._http.get(f"{self.base_url}{path}")
            return response.status_code, response.text
        except httpx.HTTPError as error:
            raise EndpointGoneError(
                f"{self.base_url}: no answer ({self._hidden(str(error) or type(error).__name__)}); is the server up, "
                "and does its address end as it should (mostly /v1)?"
            ) from None

    def _wrong_key(self) -> str:
        if self.endpoint.api_key_env:
            return f"the server refuses the key in {self.endpoint.api_key_env}"
        return "the server wants a key; name the environment variable that holds it with --api-key-env"

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _scrubbed(self, reply: Reply) -> Reply:
        return replace(reply, text=self._hidden(reply.text))


@asynccontextmanager
async def open_client(name: str, endpoint: Endpoint, base_url: str, timeout_s: float) -> AsyncIterator[Client]:
    """A client with as many connections as are asked for, kept open between requests."""
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # in a trial of Hydra's it would log each request
    key = endpoint.key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(headers=headers, timeout=timeout_s, limits=limits, trust_env=False) as http:
        yield Client(name, endpoint, base_url, key, http)


async def _text(response: httpx.Response) -> str:
    return (await response.aread()).decode("utf-8", errors="replace")


def _status_error(status: int, text: str) -> BrokenReplyError:
    try:
        message = error_text(json_object(text))
    except BrokenReplyError:
        message = text
    return BrokenReplyError(f"http_{status}", message)


def _model_rows(text: str) -> list[dict[str, Any]]:
    try:
        rows = json_object(text).get("data")
    except BrokenReplyError:
        return []
    return [row for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []


def _listed(models: tuple[str, ...]) -> str:
    shown = ", ".join(models[:SHOWN_MODELS])
    more = f" and {len(models) - SHOWN_MODELS} more" if len(models) > SHOWN_MODELS else ""
    return f"{'is' if len(models) == 1 else 'are'} {shown}{more}"
