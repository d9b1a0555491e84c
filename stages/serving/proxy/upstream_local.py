"""The models of one domain in this process as upstream; requests at the same time share forward passes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from stages.core.errors import GroundtuneError
from stages.serving.models import Models
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.one_by_one import LocalEngine
from stages.serving.proxy.upstream import Job, Piece


class LocalUpstream:
    """Loads weights when they are first asked for."""

    takes_images = False

    def __init__(self, models: Models) -> None:
        self._engine = LocalEngine(models)

    async def close(self) -> None:
        await self._engine.close()

    async def stream(self, job: Job) -> AsyncGenerator[Piece, None]:
        """Raises ApiError for what the engine cannot do, and where weights are missing."""
        sampling = job.sampling
        if sampling.presence_penalty or sampling.frequency_penalty:
            raise invalid("this model takes no penalties", "presence_penalty", "not_supported")
        for index in range(sampling.num_choices):
            pieces = self._engine.stream(
                job.model,
                job.prompt_ids,
                max_new_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=1.0 if sampling.top_p is None else sampling.top_p,
                seed=None if sampling.seed is None else sampling.seed + index,
                stop=list(sampling.stop),
            )
            async with aclosing(pieces):
                try:
                    async for piece in pieces:
                        count = piece.num_completion_tokens if piece.finish_reason else None
                        prompt = len(job.prompt_ids) if piece.finish_reason else None
                        yield Piece(piece.text, index, piece.finish_reason, prompt, count)
                except GroundtuneError as error:
                    raise ApiError(503, "model_unavailable", "the model cannot be loaded; see the log") from error
