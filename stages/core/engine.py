"""Many batches through one function: in this process, or in workers on Ray.

    for number, vectors in map_batches(config.engine, load, batches, "Embedding"):
        keep(batches[number], vectors)

`load()` returns the function, once here or once in each worker. Either way it gets the same batches, so that what it
returns is the same bytes; only the order in which they come back is Ray's. The caller is the one who keeps results,
so that a rerun asks for what is missing only, on whichever engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stages.core.progress import track
from stages.core.schema import one_of

Batch = TypeVar("Batch")
Result = TypeVar("Result")

KINDS = ("local", "ray")


@dataclass
class Engine:
    """Mirrors conf/engine; all but `kind` is about Ray."""

    kind: str = "local"
    address: str = ""  # host:port of a running cluster; "": Ray is started here
    num_workers: int = 2
    num_cpus: int = 1  # of each worker
    num_gpus: float = 0.0
    connect_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "engine.kind")
        if self.num_workers < 1 or self.num_cpus < 1 or self.num_gpus < 0 or self.connect_timeout_s <= 0:
            raise ValueError(
                "engine: num_workers and num_cpus are at least 1, num_gpus not negative, connect_timeout_s above 0"
            )
        host, _, port = self.address.rpartition(":")
        if self.address and not (host and port.isdecimal() and "/" not in host):
            raise ValueError(f"engine.address: {self.address!r} is no host:port, such as 10.0.0.5:6379")


def map_batches(
    engine: Engine, load: Callable[[], Callable[[Batch], Result]], batches: Sequence[Batch], description: str
) -> Iterator[tuple[int, Result]]:
    """(number of the batch, its result), as they get ready.

    load: picklable where the engine is Ray, as are batches and results. Not called where there is no batch. Raises
    what `load` and its function raise; ConfigError where Ray is not there, DataError where a worker keeps dying.
    """
    if not batches:
        return
    if engine.kind == "ray":
        from stages.core.ray_engine import map_on_ray

        results = map_on_ray(engine, load, batches)
    else:
        results = _map_here(load, batches)
    yield from track(results, description, len(batches))


def _map_here(load: Callable[[], Callable[[Batch], Result]], batches: Sequence[Batch]) -> Iterator[tuple[int, Result]]:
    function = load()
    for number, batch in enumerate(batches):
        yield number, function(batch)
