"""Real servers on loopback for DVC's cache: S3's protocol (moto), SSH with SFTP (asyncssh), and a line that can break."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ports import free_port


@contextmanager
def s3_server(bucket: str) -> Iterator[int]:
    """The port of a server of S3's protocol that holds an empty bucket."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        create = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(create, timeout=10):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


class Line:
    """Passes connections on to `target`; breaks, with all of them, once `max_bytes` have gone there."""

    def __init__(self, target: int, max_bytes: int | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.broken = threading.Event()
        self._target, self._left = target, max_bytes
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.broken.set()
        for end in [self._listener, *self._open]:
            with suppress(OSError):  # shut down first: one that a thread reads from would stay open for its peer
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self.broken.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [client, server]
            if self.broken.is_set():  # meanwhile
                self.cut()
                return
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self.cut()
                        return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def ssh_server(folder: Path) -> Iterator[int]:
    """The port of an SSH server with SFTP; folder/.ssh gets the client's key and the server's name."""
    import asyncssh

    settings = folder / ".ssh"
    settings.mkdir(parents=True, mode=0o700)
    server_key, client_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    client_key.write_private_key(str(settings / "id"))
    client_key.write_public_key(str(settings / "id.pub"))
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), free_port()

    async def listen() -> None:
        await asyncssh.create_server(
            asyncssh.SSHServer,
            "127.0.0.1",
            port,
            server_host_keys=[server_key],
            authorized_client_keys=str(settings / "id.pub"),
            sftp_factory=True,
        )
        ready.set()

    def run() -> None:
        loop.create_task(listen())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    assert ready.wait(30)
    public = server_key.export_public_key().decode()
    (settings / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)
