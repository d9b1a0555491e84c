"""What every process of ours sets up first: no telemetry, no spinning threads, no orphans, an end in one line.

Whatever we write is safe against SIGKILL, so an end that was asked for (SIGTERM, Ctrl-C) is no different: nothing is
unwound, no library gets to print what it was doing.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from stages.core.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

QUIET = {
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",  # after a kill: what it cleans up, it says, was leaked
    # Threads that wait for work sleep instead of spinning: on a busy machine spinning made two threads several times
    # slower than one. Read when OpenMP starts.
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS; read when CUDA starts
}

PR_SET_PDEATHSIG = 1


def quiet_environment() -> None:
    """Sets what libraries read from the environment, here and in children; a value that the user has set stays."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    # Said at every import, about nothing that a user of ours can change.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def die_with_parent(parent: int = 0) -> None:
    """Asks Linux to kill this process when its parent dies: a killed `dvc repro` leaves no trainer behind.

    Source: prctl(2). Elsewhere nothing happens. A parent that died before the call is noticed too, where it is known
    who it was: `parent`, what multiprocessing says, or DVC.
    """
    if not sys.platform.startswith("linux"):
        return
    spawner, found = multiprocessing.parent_process(), os.getppid()
    known = parent or (spawner.pid if spawner else 0)
    orphaned = found != known if known else found == 1 and "DVC_ROOT" in os.environ and not _process_one_is_dvc()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if orphaned or os.getppid() != found:
        os.kill(os.getpid(), signal.SIGKILL)


def _process_one_is_dvc() -> bool:
    """True in a container that was started for `dvc repro`: a stage's parent may be process 1 there."""
    with open("/proc/1/cmdline", "rb") as file:
        return b"dvc" in file.read()


def end_in_one_line(name: str) -> None:
    """From now on SIGTERM and Ctrl-C end this process at once: one line, exit code 143 or 130, no traceback."""

    def end(number: int, _frame: Any) -> None:
        os.write(2, f"{name}: stopped by {signal.Signals(number).name}; just run it again\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


@contextmanager
def ctrl_c_for_us_alone() -> Iterator[None]:
    """Processes started in this block never see Ctrl-C, which goes to the whole group: they die with us instead."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_workers: int) -> list[Result]:
    """`function` of each item, in order, in fresh processes that die with this one.

    Raises what the function raises, and DataError where a process was killed.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    try:
        with ProcessPoolExecutor(min(num_workers, len(items)), context, initializer=die_with_parent) as pool:
            with ctrl_c_for_us_alone():
                results = pool.map(function, items)
            return list(results)
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed (out of memory?): run again, or lower num_workers") from error
