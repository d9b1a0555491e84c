"""Whether there is a Ray at an address, asked before Ray, which waits for many minutes for one that is not there."""

from __future__ import annotations

import subprocess
import sys

from stages.core.errors import ConfigError


def require_cluster(address: str, key: str, within_s: float = 30.0) -> None:
    """address: HOST:PORT of a head node. Raises ConfigError, naming the setting `key`, where none answers in time."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        code = subprocess.run(command, capture_output=True, timeout=within_s, check=False).returncode
    except subprocess.TimeoutExpired:
        code = 1
    if code:
        raise ConfigError(
            f"{key}: no Ray cluster answers at {address} within {within_s:g} s; start one (`ray start --head`, and "
            "`ray start --address=...` on this machine), or say where it is as HOST:PORT"
        )
