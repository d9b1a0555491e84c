"""Stands where the batched engine will: one answer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from stages.serving.models import Models


@dataclass(frozen=True)
class Written:
    """A piece of text."""

    text: str
    finish_reason: str | None
    num_completion_tokens: int


class LocalEngine:
    """One answer at a time."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._lock = asyncio.Lock()

    async def stream(
        self,
        model: str,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> AsyncGenerator[Written, None]:
        from stages.generation.decoding import stream

        async with self._lock:
            with self.models.use(model) as loaded:
                pieces = stream(loaded.network, loaded.tokenizer, prompt_ids, max_new_tokens, temperature)
                count, text = 0, ""
                while True:
                    piece = await asyncio.to_thread(next, pieces, None)
                    if piece is None:
                        break
                    count += 1
                    text += piece
                    yield Written(piece, None, count)
                yield Written("", "length" if count >= max_new_tokens else "stop", count)

    async def close(self) -> None:
        pass
