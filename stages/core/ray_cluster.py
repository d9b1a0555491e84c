"""Whether there is a Ray at an address, asked before Ray, which waits for many minutes for one that is not there."""

from __future__ import annotations

import socket

from stages.core.errors import ConfigError

ANSWER_WITHIN_S = 5.0


def require_cluster(address: str) -> None:
    """address: HOST:PORT of a head node. Raises ConfigError where nobody answers there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster at {address} ({error}): "
            "start its head with `ray start --head`, or say where that is as HOST:PORT"
        ) from error
