"""What an upstream is asked, and what it gives back, whoever it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from stages.prompts.renderer import Renderer


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; None: not asked for, as the upstream has it."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    num_choices: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True)
class Job:
    """A prompt, as messages and as the token ids that they become; model: its name at the upstream."""

    model: str
    messages: list[dict[str, Any]]
    prompt_ids: list[int]
    sampling: Sampling


@dataclass(frozen=True)
class Piece:
    """Some of the text of choice `index`. finish_reason: with its last piece. Token counts: where they are known."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None


class Upstream(Protocol):
    """Writes answers."""

    takes_images: bool

    async def renderer(self, model: str) -> Renderer | None:
        """How its prompts look; None where the upstream does not know. Raises ApiError."""

    def stream(self, job: Job) -> AsyncGenerator[Piece, None]:
        """Pieces, until every choice is finished; closing the generator stops the work. Raises ApiError."""

    async def close(self) -> None:
        """Lets go of connections and threads."""


async def counted(
    pieces: AsyncGenerator[Piece, None], num_prompt_tokens: int, num_tokens: Callable[[str], int]
) -> AsyncGenerator[Piece, None]:
    """The pieces; after those of an upstream that counts no tokens, one with our own count (num_tokens of a text)."""
    texts: dict[int, str] = defaultdict(str)
    has_counts = False
    async with aclosing(pieces):
        async for piece in pieces:
            has_counts |= piece.num_completion_tokens is not None
            texts[piece.index] += piece.text
            yield piece
    if not has_counts:
        count = sum(num_tokens(text) for text in texts.values())
        yield Piece(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=count)
