"""One request to an OpenAI-compatible server, and what its failures mean.

Source of the protocol: https://platform.openai.com/docs/api-reference/chat
    no connection, time-out, half an answer, 408, 409, 425, 429, 5xx   TransientError
    400, 413, 422     a looser response format is tried (json_schema, json_object, text); then RefusedError
    anything else     FatalError: a wrong key, a wrong model, no credit
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from dataclasses import replace
from typing import Any

from stages.synthetic.requests import Reply, Request
from stages.synthetic.settings import RESPONSE_FORMATS, Provider

TRANSIENT = (408, 409, 425, 429)
REFUSED = (400, 413, 422)
MAX_RETRY_AFTER_S = 3600.0  # a server that asks for more has run out for today
SHOWN_CHARS = 200


class TransientError(Exception):
    """Worth another attempt, `after_s` seconds from now at the earliest."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class RefusedError(Exception):
    """The server does not take this request in any form."""


class FatalError(Exception):
    """No request can succeed."""


class ChatCompletions:
    """A server. `key` stands in no message, even where the server repeats it; "" where it needs none."""

    def __init__(self, provider: Provider, key: str) -> None:
        from openai import AsyncOpenAI

        self._provider = provider
        self._key = key
        formats = RESPONSE_FORMATS if provider.response_format == "auto" else (provider.response_format,)
        self._formats = list(formats)
        self.num_attempts = 0
        self.client = AsyncOpenAI(
            api_key=key or "none",  # where none is given the client takes OPENAI_API_KEY, for whatever server
            base_url=provider.base_url,
            max_retries=0,
            timeout=provider.timeout_s,
        )
        self.client.organization = self.client.project = None  # from the environment, for another server

    async def send(self, request: Request) -> Reply:
        """In the strictest response format that the server takes; once it took one, stricter ones are not tried."""
        refusal = RefusedError("")
        for response_format in list(self._formats):
            try:
                reply = await self._send(request, response_format)
            except RefusedError as error:
                refusal = error
                continue
            if response_format in self._formats:
                self._formats = self._formats[self._formats.index(response_format) :]
            return reply
        raise refusal

    async def _send(self, request: Request, response_format: str) -> Reply:
        import openai

        self.num_attempts += 1
        try:
            async with asyncio.timeout(self._provider.timeout_s):  # of the whole: bytes may trickle for ever
                completions = self.client.chat.completions.with_raw_response
                raw = await completions.create(**self._body(request, response_format))
            return self._scrubbed(_read_reply(raw.http_response.json()))
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except (openai.APIConnectionError, TimeoutError) as error:
            raise TransientError(self._message(error.__cause__ or error)) from None
        except ValueError as error:
            raise TransientError(f"broken answer: {self._message(error)}") from None

    def _body(self, request: Request, response_format: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._provider.model,
            "messages": request.messages,
            "temperature": self._provider.temperature,
            "extra_body": dict(self._provider.extra),
        }
        if self._provider.max_tokens:
            body["max_tokens"] = self._provider.max_tokens
        if response_format == "json_schema":
            schema = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _status_error(self, error: Any) -> Exception:
        status, message = error.status_code, self._message(error)
        if status in REFUSED:
            return RefusedError(message)
        if (status not in TRANSIENT and status < 500) or "insufficient_quota" in str(error.body):
            return FatalError(message + self._advice(status))
        after_s = _retry_after_s(error.response.headers.get("retry-after", ""))
        if after_s > MAX_RETRY_AFTER_S:
            return FatalError(f"{message}; it asks to come back in {after_s / 3600:.1f} hours")
        return TransientError(message, after_s)

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            name = self._provider.api_key_env
            return f" (see the key in {name})" if name else " (set the provider's api_key_env)"
        return " (see the provider's base_url and model)" if status == 404 else ""

    def _message(self, error: BaseException) -> str:
        text = " ".join((str(error) or type(error).__name__).split())
        return self._without_key(text)[:SHOWN_CHARS]

    def _scrubbed(self, reply: Reply) -> Reply:
        return replace(reply, content=self._without_key(reply.content), refusal=self._without_key(reply.refusal))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _read_reply(data: Any) -> Reply:
    """Raises ValueError for an answer without a message: gateways send their upstream's errors with status 200."""
    try:
        choice, usage = data["choices"][0], data.get("usage") or {}
        message = choice["message"]
        return Reply(
            content=str(message.get("content") or ""),
            finish_reason=str(choice.get("finish_reason") or ""),
            refusal=str(message.get("refusal") or ""),
            num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
            num_completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"no message in {data!s}") from None


def _retry_after_s(header: str) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3); 0 where it says neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
