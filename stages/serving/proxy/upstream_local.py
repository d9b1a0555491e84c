"""The models of one domain in this process as upstream; requests at the same time share forward passes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from stages.core.errors import GroundtuneError
from stages.generation.batched_decoding import TooLongError
from stages.prompts.renderer import Renderer
from stages.serving.local_engine import EngineBusyError, LocalEngine
from stages.serving.models import Models
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.settings import Upstream
from stages.serving.proxy.upstream import Job, Piece

LOG = logging.getLogger("groundtune.serve")


class LocalUpstream:
    """Loads weights when they are first asked for; newer files are taken by new requests."""

    takes_images = False

    def __init__(self, models: Models, settings: Upstream, max_requests: int) -> None:
        self._engine = LocalEngine(
            models, settings.max_batch_size, settings.max_total_tokens, max_requests, settings.prefix_cache_bytes
        )

    async def close(self) -> None:
        await self._engine.close()

    async def renderer(self, model: str) -> Renderer:
        """That of the model as it is loaded now. Raises ApiError where it cannot be."""
        try:
            return (await self._engine.load(model)).renderer
        except GroundtuneError as error:
            raise _unavailable(model, error) from error

    async def stream(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The choices side by side. Raises ApiError for what the engine cannot do."""
        sampling = job.sampling
        for penalty in ("presence_penalty", "frequency_penalty"):
            if getattr(sampling, penalty):
                raise invalid("this model takes no penalties", penalty, "not_supported")
        pieces = self._engine.stream(
            job.model,
            job.prompt_ids,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            seed=sampling.seed,
            stop=list(sampling.stop),
            num_choices=sampling.num_choices,
        )
        try:
            async with aclosing(pieces):  # type: ignore[type-var]  # a generator
                async for piece in pieces:
                    counts = (len(job.prompt_ids), piece.num_completion_tokens) if piece.finish_reason else (None, None)
                    yield Piece(piece.text, piece.index, piece.finish_reason, *counts)
        except TooLongError as error:
            raise invalid(str(error), "messages", "context_length_exceeded") from error
        except GroundtuneError as error:
            raise _unavailable(job.model, error) from error


def _unavailable(model: str, error: GroundtuneError) -> ApiError:
    if isinstance(error, EngineBusyError):
        return ApiError(429, "engine_busy", "too many requests are open; try again later")
    LOG.error("%s: %s", model, error)
    return ApiError(503, "model_unavailable", "the model cannot be used now; see the server's log")
