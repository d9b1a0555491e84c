"""What is asked of an endpoint, and what came of it, with the times at which it came.

    ChatRequest([{"role": "user", "content": "Who keeps the mill Bako?"}], max_tokens=32)
    Reply(text="Lona.", finish_reason="stop", latency_s=0.21, first_token_s=0.05, gaps_s=[0.08, 0.08], ...)

A reply that is not whole has a `failure`: unreachable, timeout, http_<status>, cut, garbage, error_event, empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stages.prompts.chat import Message

SHOWN_CHARS = 200


@dataclass(frozen=True)
class ChatRequest:
    """sources: kinds of the records that a server which retrieves is to do so from; (): it is to leave it."""

    messages: list[Message]
    max_tokens: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetrieveRequest:
    """A question to `/v1/retrieve`. kinds: of the records that count."""

    question: str
    domain: str
    kinds: tuple[str, ...]
    top_k: int
    max_distance: float
    siblings: int


@dataclass(frozen=True)
class Reply:
    """Seconds count from when the request was sent.

    first_token_s: None where the answer came in one piece. gaps_s: between the pieces after the first.
    num_prompt_tokens, num_completion_tokens: as the server counts them, 0 where it does not say.
    documents: what was retrieved, each with its `id`, `kind`, `distance` and `text`.
    """

    text: str = ""
    finish_reason: str = ""
    failure: str = ""
    detail: str = ""
    latency_s: float = 0.0
    first_token_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    documents: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.failure

    @property
    def num_tokens(self) -> int:
        """Of the answer: the server's count, else its pieces."""
        if self.num_completion_tokens:
            return self.num_completion_tokens
        return 0 if self.first_token_s is None else 1 + len(self.gaps_s)


class BrokenReplyError(Exception):
    """Why an answer is not whole."""

    def __init__(self, failure: str, detail: str) -> None:
        super().__init__(detail)
        self.failure, self.detail = failure, " ".join(detail.split())[:SHOWN_CHARS]
