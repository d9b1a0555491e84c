"""Reading many documents in worker processes, in order; every file has an outcome, whatever it does to its reader.

for outcome in parse_files(paths, Limits(), num_workers=2):
    outcome.document      # or None, and then outcome.reason and outcome.detail say why
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import stages
from stages.documents import worker as reader_process  # run, not called: named here as what this depends on
from stages.documents.blocks import Block, Document
from stages.documents.limits import Limits

FILES_PER_WORKER = 1000  # then a fresh one: what libraries leak stays small
AHEAD_PER_WORKER = 8  # files read before the first of them is asked for; bounds the memory
ANSWER_BYTES_PER_CHAR = 12  # JSON writes a letter outside the BMP as \ud83d\ude00
MAX_ANSWER_BYTES = 2 << 30
# All that a worker sees of the environment: keys and passwords in it are none of a document's business
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")


@dataclass(frozen=True)
class Outcome:
    """A document, or the reason (one of blocks.REASONS) why there is none."""

    path: Path
    document: Document | None = None
    reason: str = ""
    detail: str = ""


def parse_files(paths: Iterable[Path], limits: Limits, num_workers: int = 1) -> Iterator[Outcome]:
    """One outcome a path, in the order of the paths. Threads only wait here; the work is done in processes."""
    idle: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker(limits) for _ in range(num_workers)]
    for worker in workers:
        idle.put(worker)
    pending: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for path in paths:
                pending.append(pool.submit(_with_idle_worker, idle, path))
                if len(pending) >= AHEAD_PER_WORKER * num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for worker in workers:
                worker.stop()


def _with_idle_worker(idle: SimpleQueue[_Worker], path: Path) -> Outcome:
    worker = idle.get()
    try:
        return worker.parse(path)
    finally:
        idle.put(worker)


class _Worker:
    """A process that is started when first needed and replaced when it has died or has read enough."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._num_files = 0
        self._stopped = False

    def parse(self, path: Path) -> Outcome:
        try:
            size = path.stat().st_size
        except OSError as error:
            return Outcome(path, reason="unreadable", detail=error.strerror or str(error))
        if size > self._limits.max_file_bytes:
            detail = f"{size:,} bytes; at most {self._limits.max_file_bytes:,} are read"
            return Outcome(path, reason="too_large", detail=detail)
        answer = self._ask(path)
        if "reason" in answer:
            return Outcome(path, reason=answer["reason"], detail=answer["detail"])
        blocks = [Block(kind, text, tuple(above), *rest) for kind, text, above, *rest in answer.pop("blocks")]
        return Outcome(path, Document(**answer, blocks=blocks))

    def stop(self) -> None:
        """Ends the process, whatever it is doing; nothing is started any more."""
        self._stopped = True
        self._end()

    def _ask(self, path: Path) -> dict[str, Any]:
        connection = self._running()
        try:
            connection.send_bytes(os.fsencode(path))
            if not connection.poll(self._limits.wall_s):
                self._end()
                return {"reason": "time_limit", "detail": f"more than {self._limits.wall_s} s"}
            longest = min(MAX_ANSWER_BYTES, ANSWER_BYTES_PER_CHAR * self._limits.max_chars + (64 << 20))
            answer: dict[str, Any] = json.loads(connection.recv_bytes(longest))
        except (EOFError, OSError, ValueError):
            return self._why_it_died()
        self._num_files += 1
        if answer.get("reason") == "memory_limit" or self._num_files >= FILES_PER_WORKER:
            self._end()
        return answer

    def _running(self) -> Connection[Any, Any]:
        if self._stopped:
            raise RuntimeError("asked to read after it was stopped")
        if self._connection is None:
            self._connection, theirs = Pipe()
            command = [sys.executable, "-P", "-m", reader_process.__name__, str(theirs.fileno())]
            # This checkout's code, wherever we were started and whatever is installed
            roots = [str(Path(stages.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
            environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, roots))
            self._process = subprocess.Popen(
                [*command, json.dumps(asdict(self._limits))],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
            theirs.close()
            self._num_files = 0
        return self._connection

    def _why_it_died(self) -> dict[str, Any]:
        code = self._end()
        if code == -signal.SIGXCPU:
            return {"reason": "time_limit", "detail": f"more than {self._limits.cpu_s} s of CPU time"}
        what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"reason": "crashed", "detail": f"{what}; damaged, or more than {self._limits.memory_bytes >> 20} MiB"}

    def _end(self) -> int:
        """The exit code of the process, which is killed if it still runs; 0 where there was none."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return 0
        try:  # a process that has died by itself says why; give it the moment it needs to be gone
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
