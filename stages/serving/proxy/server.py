"""The server itself: starts the service, says where it listens, ends when asked to."""

from __future__ import annotations

import asyncio
import socket

import typer

from stages.core.errors import ConfigError
from stages.serving.proxy.catalogue import settle
from stages.serving.proxy.service import Service

BACKLOG = 2048  # connections that wait to be accepted
SHUTDOWN_S = 10  # for answers that are being written


def serve(service: Service) -> None:
    """Serves until it is interrupted. Raises ConfigError where the address is taken, DataError as Service.start."""
    from uvicorn.loops.auto import auto_loop_factory

    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop, where there is one
        runner.run(_serve(service))


async def _serve(service: Service) -> None:
    import uvicorn

    from stages.serving.proxy.app import build_app

    listening = listen(service.config.host, service.config.port)
    try:
        typer.echo("loading indexes and models", err=True)
        await service.start()
        settle()
        host, port = listening.getsockname()[:2]
        for entry in service.catalogue.entries.values():
            where = f"{entry.domain.name}, {entry.upstream_model} of {entry.upstream_name}"
            typer.echo(f"  {entry.name}: {where}", err=True)
        typer.echo(f"serving http://{f'[{host}]' if ':' in host else host}:{port}/v1 (API: /docs)", err=True)
        config = uvicorn.Config(
            build_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=SHUTDOWN_S,
            ws="none",
        )
        await uvicorn.Server(config).serve([listening])
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigError where it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(f"serve.host {host}, serve.port {port}: cannot listen there ({error.strerror})") from error
    listening.setblocking(False)
    return listening
