"""Where a server of a test may listen, and whether it does by now."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from pathlib import Path

START_S = 120


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the URL answers. AssertionError with the process's log where it ends before, or takes too long."""
    for _ in range(START_S * 4):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"not up after {START_S} s: {log.read_text()}")
