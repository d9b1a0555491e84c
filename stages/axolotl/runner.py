"""Runs a program of axolotl's environment: its log records as they come, and no end but a clear one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.axolotl.checked_train import REFUSED
from stages.core.errors import ConfigError, DataError
from stages.core.process import die_with_parent

POLL_S = 0.1
GRACE_S = 10.0  # between SIGTERM and SIGKILL
ERROR_LINE = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b")
LINES_AFTER_ERROR = 3  # pydantic names the key in the lines after it
OUT_OF_MEMORY = "; the kernel stops what takes too much memory: lower training.batch_size, or set axolotl.quantise"


@dataclass(frozen=True)
class Run:
    """A command, and the two files it writes: its output, and records, one JSON object a line."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    progress: Path
    silence_timeout_s: float

    def records(self) -> Generator[dict[str, Any], None, None]:
        """Starts the command and yields its records; it is stopped when the caller goes away, or dies.

        Raises DataError where it fails, is killed, or neither file has grown for `silence_timeout_s`; ConfigError
        where it refuses its configuration.
        """
        self.progress.touch()
        with open(self.log, "ab") as log, open(self.progress, encoding="utf-8") as progress:
            log_start = log.tell()
            progress.seek(0, os.SEEK_END)  # earlier attempts
            process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            try:
                yield from self._watch(process, progress)
            finally:
                _stop(process)
        self._check(process.returncode, log_start)

    def _watch(self, process: subprocess.Popen[bytes], progress: Any) -> Iterator[dict[str, Any]]:
        size, last_sign_s, unfinished, running = -1, time.monotonic(), "", True
        while running:
            running = process.poll() is None  # before reading: what it wrote last is read too
            *lines, unfinished = (unfinished + progress.read()).split("\n")
            yield from map(json.loads, lines)
            if (now := self._size()) != size:
                size, last_sign_s = now, time.monotonic()
            elif time.monotonic() - last_sign_s > self.silence_timeout_s:
                raise DataError(
                    f"axolotl gave no sign of life for {self.silence_timeout_s:g} s and was stopped; the last lines of "
                    f"{self.log}:\n{_indented(self._lines(0)[-5:])}\nrun again to go on from the last checkpoint, or "
                    "raise axolotl.silence_timeout_s"
                )
            if running:
                _wait(process, POLL_S)

    def _size(self) -> int:
        return self.log.stat().st_size + self.progress.stat().st_size

    def _check(self, code: int, log_start: int) -> None:
        if code == 0:
            return
        lines = self._lines(log_start)
        places = [place for place, line in enumerate(lines) if ERROR_LINE.match(line)]
        shown = lines[places[-1] : places[-1] + 1 + LINES_AFTER_ERROR] if places else lines[-5:]
        if code == REFUSED:
            raise ConfigError(f"axolotl: {(shown or [''])[0].split(': ', 1)[-1]}; look in conf/axolotl")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        hint = OUT_OF_MEMORY if code == -signal.SIGKILL else ""
        raise DataError(f"axolotl {how}{hint}:\n{_indented(shown)}\nall of it is in {self.log}; run again to resume")

    def _lines(self, start: int) -> list[str]:
        text = self.log.read_bytes()[start:].decode("utf-8", errors="replace")
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the whole session of a process that still runs: its workers too."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    if not _wait(process, GRACE_S):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
