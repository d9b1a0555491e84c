"""Batches through a pool of workers on Ray, by Ray Data's `map_batches` (Moritz et al., 2018, arXiv:1712.05889).

A row is one batch, {"number": 7, "batch": <pickle>}; its result comes back as soon as it is there, as
{"number": 7, "result": <pickle>}. Pickled as a whole, since Arrow would turn lists and numbers into its own.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stages.core.engine import Batch, Engine, Result
from stages.core.errors import ConfigError, DataError, GroundtuneError
from stages.core.process import quiet_environment
from stages.core.ray_cluster import require_cluster
from stages.core.workspace import ROOT

LOOPBACK = "127.0.0.1"
MAX_DEATHS = 2  # of a worker, and tries of a batch again: a model that does not fit into memory dies each time
QUIET_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without GPUs of its own sees what its node sees
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class _Worker:
    """What runs in each process of the pool. Loads at its first batch: Ray would start one that fails to again and
    again."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]]) -> None:
        self._load = load
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        try:
            if self._function is None:
                quiet_environment()
                self._function = self._load()
            result = self._function(pickle.loads(rows["batch"][0]))  # noqa: S301  # our own, over our own cluster
        except GroundtuneError as error:
            result = error
        return {"number": [int(rows["number"][0])], "result": [pickle.dumps(result)]}


def map_on_ray(
    engine: Engine, load: Callable[[], Callable[[Batch], Result]], batches: Sequence[Batch]
) -> Iterator[tuple[int, Result]]:
    """See stages.core.engine.map_batches."""
    with connected(engine):
        import ray

        _check_room(engine, ray.nodes())
        data = _mapped(engine, load, batches)
        try:
            for row in data.iter_rows():
                result = pickle.loads(row["result"])  # noqa: S301
                if isinstance(result, GroundtuneError):
                    raise result
                yield row["number"], result
        except (ray.exceptions.ActorDiedError, ray.exceptions.OutOfMemoryError) as error:
            raise DataError(
                f"a worker on Ray died {MAX_DEATHS + 1} times (out of memory?): what is done is kept; run again with "
                "fewer engine.num_workers, or smaller batches"
            ) from error


def _mapped(engine: Engine, load: Callable[[], Callable[[Batch], Result]], batches: Sequence[Batch]) -> Any:
    """The dataset of results; nothing runs before it is read."""
    from ray.data import ActorPoolStrategy, from_items

    rows = [{"number": number, "batch": pickle.dumps(batch)} for number, batch in enumerate(batches)]
    blocks = from_items(rows, override_num_blocks=len(rows))  # a worker takes and gives back a block at once: a batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray means to drop these limits; without them it would go on for ever
        return blocks.map_batches(
            _Worker,
            fn_constructor_args=(load,),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(engine.num_workers, len(rows))),
            num_cpus=engine.num_cpus,
            num_gpus=engine.num_gpus,
            max_restarts=MAX_DEATHS,
            max_task_retries=MAX_DEATHS,
        )


@contextmanager
def connected(engine: Engine) -> Iterator[None]:
    """Ray in this process while the block runs; a connection that is there already is used, and stays."""
    for key, value in QUIET_RAY.items():
        os.environ.setdefault(key, value)
    if not engine.address and "ray" not in sys.modules:  # which reads it when it is imported
        # its ports are open to the network: nobody without the token is heard
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError("engine.kind: Ray is not installed: pip install 'groundtune[ray]'") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    with _our_signals():
        _start(engine)
    try:
        yield
    finally:
        ray.shutdown()


def _start(engine: Engine) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not engine.address:
        num_cpus = engine.num_workers * engine.num_cpus
        own = {"include_dashboard": False, "num_cpus": num_cpus, "_node_ip_address": LOOPBACK}
        ray.init(address="local", **own, **options)
        return
    require_cluster(engine.address, "engine.address", engine.connect_timeout_s)
    try:
        ray.init(address=engine.address, runtime_env={"py_modules": [str(ROOT / "stages")]}, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"engine.address: {engine.address}: {_first_line(error)}") from error


def _check_room(engine: Engine, nodes: Sequence[dict[str, Any]]) -> None:
    """Raises ConfigError where the workers fit nowhere: Ray would wait for ever."""
    room = 0
    for resources in (node["Resources"] for node in nodes if node["Alive"]):
        by_cpus = resources.get("CPU", 0) // engine.num_cpus
        room += int(min(by_cpus, resources.get("GPU", 0) // engine.num_gpus) if engine.num_gpus else by_cpus)
    if room < engine.num_workers:
        raise ConfigError(
            f"engine.num_workers: {engine.num_workers} workers of {engine.num_cpus} CPUs and {engine.num_gpus:g} GPUs, "
            f"but there is room for {room}"
        )


@contextmanager
def _our_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; ours (stages.core.process.end_in_one_line) ends at once, and Ray with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
