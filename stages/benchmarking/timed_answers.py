"""A chat completion put together from its stream, and when each piece of it came.

    {"choices": [{"delta": {"content": "Lo"}}]}
    {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 2}}

Source: https://platform.openai.com/docs/api-reference/chat-streaming. Data with a key `error` is how a server ends a
stream that cannot go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from stages.benchmarking.replies import BrokenReplyError, Reply
from stages.serving.proxy.event_stream import read_events


async def streamed_answer(chunks: AsyncIterator[bytes], start_s: float, documents_key: str = "") -> Reply:
    """start_s: when the request was sent (perf_counter). documents_key: where a server of ours names its sources.

    Raises BrokenReplyError for a stream that is none, or ends before the answer does.
    """
    answer = _StreamedAnswer(start_s, documents_key)
    try:
        async for value in read_events(chunks):
            if value is None:
                break
            answer.take(value)
    except (ValueError, RecursionError) as error:
        raise BrokenReplyError("garbage", f"no events of JSON: {error}") from None
    return answer.reply()


class _StreamedAnswer:
    def __init__(self, start_s: float, documents_key: str) -> None:
        self._start_s, self._documents_key = start_s, documents_key
        self._pieces: list[str] = []
        self._times: list[float] = []
        self._usage: dict[str, Any] = {}
        self._documents: list[dict[str, Any]] = []
        self._finish_reason = ""

    def take(self, value: Any) -> None:
        """The JSON of one event. Raises BrokenReplyError for what no chat completion holds."""
        if not isinstance(value, dict):
            raise BrokenReplyError("garbage", f"no JSON object: {value}")
        if "error" in value:
            raise BrokenReplyError("error_event", error_text(value))
        self._documents = value.get(self._documents_key) or self._documents if self._documents_key else []
        self._usage = value.get("usage") or self._usage
        choices = value.get("choices") or []
        if not isinstance(choices, list):
            raise BrokenReplyError("garbage", f"no list of choices: {choices}")
        for choice in choices:
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
