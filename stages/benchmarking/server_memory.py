"""The memory of a server on this machine, watched while it works: its process and all processes that it started.

Of a server elsewhere nothing is seen. On a GPU, memory that the driver counts for these processes is added.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_S = 0.05
GPU_EVERY = 20  # looks at main memory for each one at the GPU's, which costs a process


class ServerMemory:
    """Finds the process that listens at an address; remembers it."""

    def __init__(self) -> None:
        self._processes: dict[str, Any] = {}
        self._has_gpu = shutil.which("nvidia-smi") is not None

    @contextmanager
    def watch(self, base_url: str) -> Iterator[Watched]:
        """Yields what holds the peak when the block has ended."""
        if base_url not in self._processes:
            self._processes[base_url] = process_at(base_url)
        watched = Watched(self._processes[base_url], self._has_gpu)
        watched.start()
        try:
            yield watched
        finally:
            watched.stop()


class Watched:
    """peak_bytes: the most that was seen, 0 where there is no process to look at."""

    def __init__(self, process: Any, has_gpu: bool) -> None:
        self.peak_bytes = 0
        self._process, self._has_gpu = process, has_gpu
        self._gpu_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)

    def start(self) -> None:
        if self._process is not None:
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look_often(self) -> None:
        number = 0
        while True:
            self._look(with_gpu=self._has_gpu and number % GPU_EVERY == 0)
            number += 1
            if self._stopped.wait(EVERY_S):
                return

    def _look(self, with_gpu: bool) -> None:
        import psutil

        try:
            family = [self._process, *self._process.children(recursive=True)]
            in_main = sum(process.memory_info().rss for process in family)
        except psutil.Error:  # it ends, or is another user's
            return
        if with_gpu:
            self._gpu_bytes = gpu_bytes({process.pid for process in family})
        self.peak_bytes = max(self.peak_bytes, in_main + self._gpu_bytes)


def process_at(base_url: str) -> Any:
    """The psutil.Process that listens at an address of this machine; None where there is none, or it is hidden."""
    import psutil

    parts = urlsplit(base_url)
    if parts.hostname not in LOOPBACK:
        return None
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    listening = (c for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == parts.port and c.pid)
    connection = next(listening, None)
    return psutil.Process(connection.pid) if connection else None


def gpu_bytes(pids: set[int]) -> int:
    """Of these processes on all GPUs, as the driver counts; 0 where it does not say."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    rows = [line.split(",") for line in result.stdout.splitlines()]
    numbers = [(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2]
    return sum(int(used) << 20 for pid, used in numbers if pid.isdigit() and used.isdigit() and int(pid) in pids)
