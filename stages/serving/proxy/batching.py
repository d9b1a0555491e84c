"""Items that come one by one, worked on together: whoever comes while a batch runs is in the next one.

    batches = Batcher(square_all, max_batch=32)
    await batches.run(3)

Nobody waits for a batch to fill. One thread works, so the function need not be safe for several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")


class Batcher(Generic[Item, Result]):
    """work: from a list of items to their results, in order; what it raises, each of the batch gets."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], max_batch: int, thread_name: str) -> None:
        self._work, self._max_batch = work, max_batch
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def run(self, item: Item) -> Result:
        """The item's result. An item whose caller is cancelled before its batch starts is left out."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_batches())
        return await future

    async def call(self, function: Callable[[], Other]) -> Other:
        """Something else in the same thread, after what runs there now."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def close(self) -> None:
        """Waits for what runs; nothing may be asked for any more."""
        if self._running is not None:
            await asyncio.wait([self._running])
        self._executor.shutdown(wait=False)

    async def _run_batches(self) -> None:
        while batch := [pair for pair in self._waiting if not pair[1].done()][: self._max_batch]:
            taken = {id(future) for _, future in batch}
            self._waiting = [p for p in self._waiting if id(p[1]) not in taken and not p[1].done()]
            loop = asyncio.get_running_loop()
            try:
                results = await loop.run_in_executor(self._executor, self._work, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
