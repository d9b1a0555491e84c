"""Reads a streamed chat completion, and notes when each piece of it came.

    data: {"choices": [{"delta": {"content": "Lo"}}]}
    data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    data: {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 2}}
    data: [DONE]

Source: https://platform.openai.com/docs/api-reference/chat-streaming; server-sent events by the WHATWG HTML standard.
An event named `error`, or data with a key `error`, is the server's way to end a stream that cannot go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from stages.benchmarking.replies import BrokenReplyError, Reply

MAX_LINE_BYTES = 1 << 23
DONE = "[DONE]"


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    r"""Lines, split at \n and nothing else: U+2028 and the like may stand inside JSON. Raises BrokenReplyError."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise BrokenReplyError("garbage", f"a line of more than {MAX_LINE_BYTES} bytes")
        for line in whole:
            yield line.decode("utf-8", errors="replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", errors="replace").rstrip("\r")


class StreamedAnswer:
    """Takes the lines of a stream one by one; `start_s` is when the request was sent (perf_counter)."""

    def __init__(self, start_s: float, documents_key: str = "") -> None:
        self._start_s, self._documents_key = start_s, documents_key
        self._event = ""
        self._pieces: list[str] = []
        self._times: list[float] = []
        self._usage: dict[str, Any] = {}
        self._documents: list[dict[str, Any]] = []
        self._finish_reason = ""
        self.is_done = False

    def take(self, line: str) -> None:
        """Raises BrokenReplyError for what no chat completion holds."""
        if line.startswith("event:"):
            self._event = line.removeprefix("event:").strip()
        elif not line:
            self._event = ""
        elif line.startswith("data:"):
            self._take_data(line.removeprefix("data:").strip())
        elif not line.startswith((":", "id:", "retry:")):
            raise BrokenReplyError("garbage", f"no server-sent event: {line}")

    def _take_data(self, data: str) -> None:
        if data == DONE:
            self.is_done = True
            return
        value = json_object(data)
        if self._event == "error" or "error" in value:
            raise BrokenReplyError("error_event", error_text(value))
        self._documents = value.get(self._documents_key) or self._documents if self._documents_key else []
        self._usage = value.get("usage") or self._usage
        for choice in value.get("choices") or []:
            self._take_choice(choice)

    def _take_choice(self, choice: Any) -> None:
        try:
            delta, finish_reason = choice.get("delta") or {}, choice.get("finish_reason")
            text, thought = delta.get("content") or "", delta.get("reasoning_content") or delta.get("reasoning") or ""
        except AttributeError:
            raise BrokenReplyError("garbage", f"no choice: {choice!s}") from None
        self._finish_reason = str(finish_reason or self._finish_reason)
        if text or thought:
            self._pieces.append(str(text))
            self._times.append(time.perf_counter() - self._start_s)

    def reply(self) -> Reply:
        """The whole answer. Raises BrokenReplyError where the stream ended before it was one."""
        if not self._finish_reason:  # some servers send no [DONE], but all of them say why they stop
            shown = f"after {len(self._pieces)} pieces"
            raise BrokenReplyError("cut" if self._pieces else "empty", f"the stream ended {shown}, without an end")
        gaps = [later - sooner for sooner, later in zip(self._times, self._times[1:], strict=False)]
        return Reply(
            text="".join(self._pieces),
            finish_reason=self._finish_reason,
            latency_s=time.perf_counter() - self._start_s,
            first_token_s=self._times[0] if self._times else None,
            gaps_s=gaps,
            num_prompt_tokens=token_count(self._usage, "prompt_tokens"),
            num_completion_tokens=token_count(self._usage, "completion_tokens"),
            documents=self._documents,
        )


def whole_answer(text: str, start_s: float, documents_key: str = "") -> Reply:
    """An answer in one piece, as servers send it that do not stream. Raises BrokenReplyError for anything else."""
    value = json_object(text)
    if "error" in value:
        raise BrokenReplyError("error_event", error_text(value))
    try:
        choice = value["choices"][0]
        content = str(choice["message"].get("content") or "")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BrokenReplyError("garbage", f"no message in {text}") from None
    return Reply(
        text=content,
        finish_reason=str(choice.get("finish_reason") or ""),
        latency_s=time.perf_counter() - start_s,
        num_prompt_tokens=token_count(value.get("usage"), "prompt_tokens"),
        num_completion_tokens=token_count(value.get("usage"), "completion_tokens"),
        documents=value.get(documents_key) or [] if documents_key else [],
    )


def json_object(text: str) -> dict[str, Any]:
    """Raises BrokenReplyError("garbage") where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenReplyError("garbage", f"no JSON: {text}") from None
    if not isinstance(value, dict):
        raise BrokenReplyError("garbage", f"no JSON object: {text}")
    return value


def error_text(value: Any) -> str:
    """The message in an error, in any of the forms in which servers word it."""
    found = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    return str(found)


def token_count(usage: Any, key: str) -> int:
    """Of a `usage`; 0 where it does not say."""
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0
