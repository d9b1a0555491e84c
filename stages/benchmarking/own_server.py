"""Our own server, started for a benchmark and stopped whatever happens.

    with own_server(workspace) as base_url: ...     # http://127.0.0.1:<free port>/v1

It reads params.yaml as `groundtune serve` does; what it says goes to .cache/benchmark/server.log. It dies with us.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.core.errors import DataError
from stages.core.process import die_with_parent
from stages.core.workspace import Workspace

START_S = 300.0  # a large model takes minutes to load
STOP_S = 20.0
LOG_CHARS = 2000  # shown of a server that does not start


@contextmanager
def own_server(workspace: Workspace) -> Iterator[str]:
    """Yields the base URL of the running server. Raises DataError where it does not start."""
    log_path = workspace.cache("benchmark") / "server.log"
    port = _free_port()
    command = [sys.executable, "-m", "stages.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command, cwd=workspace.inputs, env=_environment(), stdout=log, stderr=log, preexec_fn=die_with_parent
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log_path)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def _environment() -> dict[str, str]:
    """Without keys: on loopback the server needs none, and with one it would refuse us."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GROUNDTUNE_")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DataError(f"our server ended at its start:\n{_last_words(log_path)}")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own http URL
                return
        except OSError:
            time.sleep(0.1)
    raise DataError(f"our server is not up after {START_S:g} s:\n{_last_words(log_path)}")


def _last_words(log_path: Path) -> str:
    return log_path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARS:].strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
