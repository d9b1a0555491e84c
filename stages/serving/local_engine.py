"""Models in this process for many callers at once: their requests share forward passes.

    engine = LocalEngine(Models(workspace, model, prompt, domain))
    loaded = await engine.load("tuned")
    ids = loaded.renderer.prompt_ids(loaded.renderer.messages(question, documents))
    async for piece in engine.stream("tuned", ids, max_new_tokens=64):
        print(piece.text, piece.finish_reason)
    await engine.close()

One thread runs all models, in turns of a few tokens; the rows of one model are one batch (BatchedDecoder). What was
read is kept for prompts that begin alike (PrefixCache): the turns of a chat, several answers to one prompt. Where a
model's files are replaced, new requests get the new ones and those that are being answered finish on the old.
Reads what Models reads; writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from stages.core.errors import GroundtuneError
from stages.generation.batched_decoding import BatchedDecoder, Continuation, Piece, Row, TooLongError
from stages.generation.prefix_cache import PrefixCache
from stages.serving.models import LoadedModel, Models, Stamp

NUM_STEPS_A_TURN = 4  # of one model while others wait: to switch adapters costs about a quarter of a step
logger = logging.getLogger(__name__)


class EngineError(GroundtuneError):
    """The model failed while it wrote, or the engine was closed."""


class EngineBusyError(EngineError):
    """As many requests are open as may be."""


@dataclass(eq=False)
class _Caller:
    """Somebody who waits, in an event loop, for what the engine's thread finds: items, or an exception."""

    loop: asyncio.AbstractEventLoop
    found: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    def tell(self, item: Any) -> None:
        _tell([(self, item)])

    async def next(self) -> Any:
        item = await self.found.get()
        if isinstance(item, Exception):
            raise item
        return item


def _tell(items: Sequence[tuple[_Caller, Any]]) -> list[_Caller]:
    """From the engine's thread: wakes each loop once. Those whose loop is closed are given back."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Caller, Any]]] = {}
    for caller, item in items:
        by_loop.setdefault(caller.loop, []).append((caller, item))
    gone = []
    for loop, its in by_loop.items():
        try:
            loop.call_soon_threadsafe(_hand_over, its)
        except RuntimeError:
            gone += [caller for caller, _ in its]
    return gone


def _hand_over(items: Sequence[tuple[_Caller, Any]]) -> None:
    for caller, item in items:
        caller.found.put_nowait(item)


@dataclass(eq=False)
class _Batch:
    """The rows of one model in one version of its files: for each, who waits for it, as which of its choices."""

    models: Models
    choice: str
    decoder: BatchedDecoder
    callers: dict[Row, tuple[_Caller, int]] = field(default_factory=dict)

    def add(self, caller: _Caller, asked: Sequence[Continuation]) -> None:
        for index, continuation in enumerate(asked):
            self.callers[self.decoder.add(continuation)] = (caller, index)

    def step(self) -> None:
        shown = []
        for row, piece in self.decoder.step():
            if piece.text or piece.finish_reason:
                caller, index = self.callers.pop(row) if piece.finish_reason else self.callers[row]
                shown.append((caller, replace(piece, index=index)))
        for caller in _tell(shown):
            self.cancel(caller)

    def cancel(self, caller: _Caller) -> None:
        for row in [row for row, (waiting, _) in self.callers.items() if waiting is caller]:
            del self.callers[row]
            self.decoder.cancel(row)


class LocalEngine:
    """Answers with `models`. At most `max_requests` may be open, of which each model writes `max_batch_size` at a time.

    max_total_tokens: of one model's batch, prompts, answers and padding together; default: max_batch_size of the
    longest. prefix_cache_bytes: of all models together, beside the batches'. The thread starts with the first request
    and ends with `close`.
    """

    def __init__(
        self,
        models: Models,
        max_batch_size: int = 16,
        max_total_tokens: int = 0,
        max_requests: int = 256,
        prefix_cache_bytes: int = 2**28,
    ) -> None:
        self.max_batch_size, self.max_requests = max_batch_size, max_requests
        self.max_total_tokens = max_total_tokens or max_batch_size * models.model.max_context_tokens
        self.num_open = 0
        self._models, self._used = models, set[str]()
        self._stamp = self._refused = models.stamp()  # of the files that are loaded, and of those that could not be
        self._prefixes = PrefixCache(prefix_cache_bytes)
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
        num_choices: int = 1,
    ) -> AsyncGenerator[Piece, None]:
        """The continuation of a prompt in pieces, of which the last has a finish_reason. Closing it frees its place.

        Of several choices, written side by side, each has an index and draws with a seed of its own, `seed` + index.
        Raises at the first piece: EngineBusyError; ConfigError and DataError for what cannot be answered, of which
        TooLongError for what never fits. Later: EngineError.
        """
        if self.num_open >= self.max_requests:
            raise EngineBusyError(f"{self.num_open} requests are open, which is as many as may be")
        first = secrets.randbits(63) if seed is None else seed
        asked = [
            Continuation(prompt_ids, max_new_tokens, temperature, top_p, (first + index) % 2**63, stop)
            for index in range(num_choices)
        ]
        caller = _Caller(asyncio.get_running_loop())
        self.num_open += 1
        try:
            self._ask(caller, partial(self._begin, caller, model, asked))
            while num_choices:
                piece: Piece = await caller.next()
                num_choices -= piece.finish_reason is not None
                yield piece
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
            self._forget(batch.models)
            return
        if batch.decoder.busy:
            self._batches.append(batch)
        else:
            self._forget(batch.models)

    def _attempt(self, caller: _Caller, action: Callable[[], object]) -> None:
        """The caller is told where the action fails."""
        try:
            action()
        except GroundtuneError as error:
            caller.tell(error)
        except Exception as error:
            logger.exception("a request could not be begun")
            caller.tell(EngineError(f"the request could not be begun: {type(error).__name__}"))

    def _begin(self, caller: _Caller, choice: str, asked: Sequence[Continuation]) -> None:
        limit, one = self._models.model.max_context_tokens, asked[0]
        if one.num_tokens > limit:
            raise TooLongError(
                f"a prompt of {len(one.prompt_ids)} tokens and {one.max_new_tokens} new ones do not fit into the "
                f"{limit} tokens of the model's context"
            )
        loaded = self._load(choice)
        batch = next((b for b in self._batches if b.models is self._models and b.choice == choice), None)
        if batch is None:
            batch = _Batch(self._models, choice, self._decoder(loaded, choice))
        batch.add(caller, asked)
        if batch not in self._batches:
            self._batches.append(batch)

    def _decoder(self, loaded: LoadedModel, choice: str) -> BatchedDecoder:
        limits = self.max_batch_size, self.max_total_tokens
        return BatchedDecoder(loaded.network, loaded.tokenizer, *limits, self._prefixes, (self._models, choice))

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

    def _swap(self, stamp: Stamp, choice: str) -> None:
        """Takes the files as they are now, if all that is in use can be loaded from them; else the old ones go on."""
        old, fresh = self._models, self._models.fresh(keep_weights=stamp.weights == self._stamp.weights)
        try:
            for used in {*self._used, choice}:
                fresh.load(used)
        except Exception as error:  # files that are being replaced can be broken in any way
            logger.warning("the models on disk have changed but cannot be loaded, the old ones go on: %s", error)
            self._refused = stamp
            fresh.drop_adapters()
        else:
            self._models, self._stamp = fresh, stamp
            self._forget(old)

    def _forget(self, models: Models) -> None:
        """Lets go of models that were replaced, once nobody's answer is being written by them."""
        if models is not self._models and all(batch.models is not models for batch in self._batches):
            for choice in self._used:
                self._prefixes.forget((models, choice))
            try:
                models.drop_adapters()
            except Exception:  # costs memory, not answers
                logger.exception("adapters that were replaced could not be taken off")


def _fail(batch: _Batch, error: EngineError) -> None:
    _tell([(caller, error) for caller in {caller for caller, _ in batch.callers.values()}])
