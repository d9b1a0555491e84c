"""An answer that the upstream has begun to write, on its way to the client: whole, or as a stream.

    data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "sources": [...], "rag": {...}}
    data: {"choices": [{"index": 0, "delta": {"content": "Lona"}}]}
    data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    data: [DONE]

Where the upstream fails in mid-stream, an event `{"error": {...}}` comes instead of the rest, and no [DONE].
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from stages.serving.proxy.errors import CLIENT_GONE, ApiError
from stages.serving.proxy.event_stream import END, event
from stages.serving.proxy.rag import Prompt, source_row
from stages.serving.proxy.schema import ChatRequest
from stages.serving.proxy.stats import Recent, Stats
from stages.serving.proxy.upstream import Piece


@dataclass
class Answering:
    """A chat that is being answered. `resources` hold its place, its domain and its upstream's stream."""

    request: ChatRequest
    prompt: Prompt
    report: dict[str, Any]
    recent: Recent
    resources: AsyncExitStack
    first: Piece
    pieces: AsyncGenerator[Piece, None]
    started_s: float
    usage: dict[str, int] | None = None

    async def all_pieces(self) -> AsyncIterator[Piece]:
        """From the first one on; counts tokens."""
        self._count(self.first)
        yield self.first
        async for piece in self.pieces:
            self._count(piece)
            yield piece

    def _count(self, piece: Piece) -> None:
        """Of several choices the completion tokens add up, the prompt's count once."""
        if piece.num_completion_tokens is None or piece.num_prompt_tokens is None:
            return
        completion = piece.num_completion_tokens + (self.usage["completion_tokens"] if self.usage else 0)
        self.usage = {
            "prompt_tokens": piece.num_prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": piece.num_prompt_tokens + completion,
        }


async def whole(answering: Answering, stats: Stats) -> dict[str, Any]:
    """A ChatCompletion. Raises ApiError where the upstream fails now."""
    num, status = answering.request.n or 1, CLIENT_GONE
    texts, reasons = [""] * num, ["stop"] * num
    async with answering.resources:
        try:
            async for piece in answering.all_pieces():
                texts[piece.index] += piece.text
                reasons[piece.index] = piece.finish_reason or reasons[piece.index]
            status = 200
        except ApiError as error:
            status = error.status
            raise
        finally:
            _record(answering, stats, status)
    choices = [
        {"index": n, "message": {"role": "assistant", "content": texts[n]}, "finish_reason": reasons[n]}
        for n in range(num)
    ]
    usage = answering.usage
    return {**_head(answering, "chat.completion"), "choices": choices, "usage": usage, **_documents(answering)}


async def events(answering: Answering, stats: Stats) -> AsyncGenerator[bytes, None]:
    """The stream's bytes. Who sends them closes `resources`: a stream may end before it is begun."""
    head, status = _head(answering, "chat.completion.chunk"), CLIENT_GONE
    try:
        yield event({**head, "choices": _opening(answering.request.n or 1), **_documents(answering)})
        async for piece in answering.all_pieces():
            if piece.text or piece.finish_reason:
                yield event({**head, "choices": [_delta(piece)]})
        options = answering.request.stream_options
        if answering.usage and options and options.include_usage:
            yield event({**head, "choices": [], "usage": answering.usage})
        status = 200
        yield END
    except ApiError as error:
        stats.num_stream_errors += 1
        status = error.status
        yield event(error.body())
    finally:
        _record(answering, stats, status)


def _record(answering: Answering, stats: Stats, status: int) -> None:
    usage = answering.usage or {}
    num_completion_tokens = usage.get("completion_tokens", 0)
    stats.wrote(usage.get("prompt_tokens", len(answering.prompt.prompt_ids)), num_completion_tokens)
    recent = answering.recent
    recent.status, recent.elapsed_s = status, time.monotonic() - answering.started_s
    recent.num_completion_tokens = num_completion_tokens


def _head(answering: Answering, kind: str) -> dict[str, Any]:
    identifier = f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": identifier, "object": kind, "created": int(time.time()), "model": answering.request.model}


def _opening(num: int) -> list[dict[str, Any]]:
    return [
        {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None} for index in range(num)
    ]


def _delta(piece: Piece) -> dict[str, Any]:
    delta = {"content": piece.text} if piece.text else {}
    return {"index": piece.index, "delta": delta, "finish_reason": piece.finish_reason}


def _documents(answering: Answering) -> dict[str, Any]:
    sources = [source_row(document) for document in answering.prompt.documents]
    return {"rag": answering.report, **({"sources": sources} if answering.request.rag.sources else {})}
