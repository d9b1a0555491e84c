"""Models in this process for many callers at once: their requests share forward passes.

    engine = LocalEngine(Models(workspace, model, prompt, domain))
    loaded = await engine.load("tuned")
    ids = loaded.renderer.prompt_ids(loaded.renderer.messages(question, documents))
    async for piece in engine.stream("tuned", ids, max_new_tokens=64):
        print(piece.text, piece.finish_reason)
    await engine.close()

One thread runs all models, in turns of a few tokens; the rows of one model are one batch (BatchedDecoder). Where a
model's files are replaced, new requests get the new ones and those that are being answered finish on the old.
Reads what Models reads; writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from stages.core.errors import DataError, GroundtuneError
from stages.generation.batched_decoding import BatchedDecoder, Continuation, Piece, Row
from stages.serving.models import LoadedModel, Models

NUM_STEPS_A_TURN = 4  # of one model while others wait: to switch adapters costs about a quarter of a step
logger = logging.getLogger(__name__)


class EngineError(GroundtuneError):
    """The model failed while it wrote, or the engine was closed."""


class EngineBusyError(EngineError):
    """As many requests are open as may be."""


@dataclass(eq=False)
class _Caller:
    """Somebody who waits, in an event loop, for what the engine's thread finds."""

    loop: asyncio.AbstractEventLoop
    found: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    def tell(self, item: Any) -> bool:
        """From the engine's thread: hands over an item, or an exception. False where nobody is there any more."""
        try:
            self.loop.call_soon_threadsafe(self.found.put_nowait, item)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def next(self) -> Any:
        item = await self.found.get()
        if isinstance(item, Exception):
            raise item
        return item


@dataclass(eq=False)
class _Batch:
    """The rows of one model in one version of its files, and who waits for them."""

    models: Models
    choice: str
    decoder: BatchedDecoder
    callers: dict[Row, _Caller] = field(default_factory=dict)

    def step(self) -> None:
        for row, piece in self.decoder.step():
            if piece.text or piece.finish_reason:
                there = self.callers[row].tell(piece)
                if piece.finish_reason:
                    del self.callers[row]
                elif not there:
                    self.cancel(self.callers[row])

    def cancel(self, caller: _Caller) -> None:
        for row in [row for row, waiting in self.callers.items() if waiting is caller]:
            del self.callers[row]
            self.decoder.cancel(row)


class LocalEngine:
    """Answers with `models`. At most `max_requests` may be open, of which each model writes `max_batch_size` at a time.

    max_total_tokens: of one model's batch, prompts, answers and padding together; default: max_batch_size of the
    longest. The thread starts with the first request and ends with `close`.
    """

    def __init__(
        self, models: Models, max_batch_size: int = 16, max_total_tokens: int = 0, max_requests: int = 256
    ) -> None:
        self.max_batch_size, self.max_requests = max_batch_size, max_requests
        self.max_total_tokens = max_total_tokens or max_batch_size * models.model.max_context_tokens
        self.num_open = 0
        self._models, self._used = models, set[str]()
        self._stamp = self._refused = models.stamp()  # of the files that are loaded, and of those that could not be
        self._batches: deque[_Batch] = deque()  # those with rows, the next one to run first
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: the end
        self._thread: threading.Thread | None = None
        self._closed = False

    async def load(self, model: str) -> LoadedModel:
        """The model as it is now, loaded where it is not yet: for its tokenizer and renderer.

        Raises ConfigError for a model that does not exist, DataError where something is missing, EngineError.
        """
        caller = _Caller(asyncio.get_running_loop())
        self._ask(caller, lambda: caller.tell(self._load(model)))
        loaded: LoadedModel = await caller.next()
        return loaded

    async def stream(
        self,
        model: str,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> AsyncIterator[Piece]:
        """The continuation of a prompt in pieces, of which the last has a finish_reason. Closing it frees its place.

        Raises at the first piece: EngineBusyError; ConfigError and DataError for what cannot be answered. Later:
        EngineError.
        """
        if self.num_open >= self.max_requests:
            raise EngineBusyError(f"{self.num_open} requests are open, which is as many as may be")
        seed = secrets.randbits(63) if seed is None else seed
        asked = Continuation(prompt_ids, max_new_tokens, temperature, top_p, seed, stop)
        caller = _Caller(asyncio.get_running_loop())
        self.num_open += 1
        try:
            self._ask(caller, partial(self._begin, caller, model, asked))
            while True:
                piece: Piece = await caller.next()
                yield piece
                if piece.finish_reason:
                    return
        finally:
            self.num_open -= 1
            self._commands.put(partial(self._cancel, caller))

    async def close(self) -> None:
        """Ends the thread; requests that are open get an EngineError."""
        self._closed = True
        if self._thread is None:
            return
        self._commands.put(None)
        while self._thread.is_alive():  # for as long as a step takes, or to load a model
            await asyncio.sleep(0.01)

    def _ask(self, caller: _Caller, action: Callable[[], object]) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        self._commands.put(partial(self._attempt, caller, action))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="local-engine", daemon=True)
            self._thread.start()

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        while self._obey():
            if self._batches:
                self._take_turn(self._batches.popleft())
        for batch in self._batches:
            _fail(batch, EngineError("the engine was closed"))

    def _obey(self) -> bool:
        """Runs the commands that came; waits for one where there is nothing else to do. False: it is time to end."""
        while not self._commands.empty() or not self._batches:
            command = self._commands.get()
            if command is None:
                return False
            command()
        return True

    def _take_turn(self, batch: _Batch) -> None:
        try:
            with batch.models.use(batch.choice) as loaded:
                batch.decoder.model = loaded.network
                for _ in range(NUM_STEPS_A_TURN):
                    batch.step()
                    if not batch.decoder.busy or not self._commands.empty():
                        break
        except Exception as error:  # one model's failure is not the others', and not the next request's
            logger.exception("the model %s failed", batch.choice)
            _fail(batch, EngineError(f"the model {batch.choice} failed: {type(error).__name__}"))
            return
        if batch.decoder.busy:
            self._batches.append(batch)

    def _attempt(self, caller: _Caller, action: Callable[[], object]) -> None:
        """The caller is told where the action fails."""
        try:
            action()
        except GroundtuneError as error:
            caller.tell(error)
        except Exception as error:
            logger.exception("a request could not be begun")
            caller.tell(EngineError(f"the request could not be begun: {type(error).__name__}"))

    def _begin(self, caller: _Caller, choice: str, asked: Continuation) -> None:
        limit = self._models.model.max_context_tokens
        if asked.num_tokens > limit:
            raise DataError(
                f"a prompt of {len(asked.prompt_ids)} tokens and {asked.max_new_tokens} new ones do not fit into the "
                f"{limit} tokens of the model's context"
            )
        loaded = self._load(choice)
        batch = next((b for b in self._batches if b.models is self._models and b.choice == choice), None)
        if batch is None:
            decoder = BatchedDecoder(loaded.network, loaded.tokenizer, self.max_batch_size, self.max_total_tokens)
            batch = _Batch(self._models, choice, decoder)
        batch.callers[batch.decoder.add(asked)] = caller
        if batch not in self._batches:
            self._batches.append(batch)

    def _cancel(self, caller: _Caller) -> None:
        for batch in self._batches:
            batch.cancel(caller)

    def _load(self, choice: str) -> LoadedModel:
        stamp = self._models.stamp()
        if stamp not in (self._stamp, self._refused):
            self._swap(stamp, choice)
        loaded = self._models.load(choice)
        self._used.add(choice)
        return loaded

    def _swap(self, stamp: Any, choice: str) -> None:
        """Takes the files as they are now, if all that is in use can be loaded from them; else the old ones go on."""
        fresh = self._models.fresh()
        try:
            for used in {*self._used, choice}:
                fresh.load(used)
        except Exception as error:  # files that are being replaced can be broken in any way
            logger.warning("the models on disk have changed but cannot be loaded, the old ones go on: %s", error)
            self._refused = stamp
        else:
            self._models, self._stamp = fresh, stamp


def _fail(batch: _Batch, error: EngineError) -> None:
    for caller in batch.callers.values():
        caller.tell(error)
