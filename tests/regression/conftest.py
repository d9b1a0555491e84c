"""A task to test with, and databases to read from: SQLite always, a real PostgreSQL server where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_tokenizer, save_llama, write_base_manifest

from stages.core.workspace import Workspace
from stages.regression.task import PairPrompt, RegressionTask, SqlSource

PASSWORD = "s3cret/pa:ss@word"  # has to be quoted in a URL
PROMPT = {
    "system": "Correlate.",
    "system_with_neighbours": "Correlate.\n{neighbours}",
    "neighbour": "A: {a} B: {b} = {value}",
    "pair": "A: {a}\nB: {b}",
}
CONTRACTS = "contracts (id TEXT, title TEXT, description TEXT, category TEXT, closes_at TEXT)"
PRICES = "prices (contract_id TEXT, at {time}, price DOUBLE PRECISION)"


def make_task(**changes: Any) -> RegressionTask:
    values: dict[str, Any] = {
        "name": "contracts",
        "raw": "data/contracts/raw",
        "json_field": "correlation",
        "low": -1.0,
        "high": 1.0,
        "decimals": 2,
        "tolerance": 0.2,
        "prompt": PairPrompt(**PROMPT),
        "source": "sql",
        "sql": SqlSource(url="sqlite:///contracts.sqlite"),
    }
    return RegressionTask(**{**values, **changes})


@pytest.fixture
def task() -> RegressionTask:
    return make_task()


# ---- a PostgreSQL server of our own --------------------------------------------------------------------------------


def postgres_programs() -> Path | None:
    """The folder with initdb and pg_ctl: on PATH, or where Debian's package puts them."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def unprivileged() -> tuple[list[str], int | None]:
    """What to put before a command so that it does not run as root (PostgreSQL refuses to), and as which user."""
    if os.geteuid() != 0:
        return [], None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user.pw_uid
    raise LookupError("no user to run PostgreSQL as")


@dataclass
class Server:
    """One server with password authentication, on a free loopback port."""

    programs: Path
    folder: Path
    port: int = 0
    prefix: list[str] = field(default_factory=list)

    def command(self, program: str, *arguments: str) -> None:
        line = [*self.prefix, str(self.programs / program), *arguments]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, timeout=90)
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program}: {done.stderr} {log.read_text() if log.exists() else ''}")

    def create(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        self.prefix, owner = unprivileged()
        if owner is not None:
            for path in (self.folder, self.folder / "password"):
                os.chown(path, owner, -1)
        self.command(
            "initdb",
            "-D",
            "data",
            "-U",
            "owner",
            "--pwfile=password",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        )
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        # The log is a file: a server that inherits our pipe would keep `run` waiting for its end.
        self.command("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        self.command("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")

    def connect(self, database: str = "postgres") -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="owner", password=PASSWORD, dbname=database, autocommit=True
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and setpriv is missing")
    folder = Path(tempfile.mkdtemp(prefix="gt-postgres-"))  # pytest's own folders are closed to other users
    server = Server(programs, folder)
    try:
        server.create()
        yield server
    finally:
        if server.port:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


# ---- the same tables in either database ----------------------------------------------------------------------------


@dataclass
class Market:
    """An empty database of one kind: `url` for our code, `execute` to fill it."""

    kind: str
    url: str
    workspace: Workspace
    execute: Callable[[str, Iterable[tuple[Any, ...]]], None]

    def create(self, prices_time: str = "TEXT") -> None:
        self.execute(f"CREATE TABLE {CONTRACTS}", [])
        self.execute(f"CREATE TABLE {PRICES.format(time=prices_time)}", [])

    def add_contract(self, identifier: str, title: str, category: str = "") -> None:
        self.execute("INSERT INTO contracts VALUES (?, ?, ?, ?, ?)", [(identifier, title, "", category, None)])

    def add_prices(self, identifier: str, prices: Iterable[float | None], first_day: int = 1) -> None:
        rows = [
            (identifier, f"2031-{1 + n // 28:02d}-{1 + n % 28:02d}", p) for n, p in enumerate(prices, first_day - 1)
        ]
        self.execute("INSERT INTO prices VALUES (?, ?, ?)", rows)


@pytest.fixture(params=["sqlite", "postgresql"])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Market]:
    """Each test gets a database of its own."""
    workspace = Workspace(tmp_path, tmp_path)
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "market.sqlite")) as database:

            def execute(statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
                database.executemany(statement, rows) if rows else database.execute(statement)
                database.commit()

            yield Market("sqlite", "sqlite:///market.sqlite", workspace, execute)
        return
    yield from _postgres_market(request.getfixturevalue("postgres"), request, workspace)


def _postgres_market(server: Server, request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[Market]:
    monkeypatch = request.getfixturevalue("monkeypatch")
    name = f"market_{abs(hash(request.node.nodeid)) % 10**9}"
    with server.connect() as owner:
        owner.execute(f"CREATE DATABASE {name}")
    variables = {"HOST": "127.0.0.1", "PORT": str(server.port), "DATABASE": name, "USER": "owner", "PASSWORD": PASSWORD}
    for variable, value in variables.items():
        monkeypatch.setenv(f"PG{variable}", value)
    with server.connect(name) as connection:

        def execute(statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
            statement = statement.replace("?", "%s")
            with connection.cursor() as cursor:
                cursor.executemany(statement, rows) if rows else cursor.execute(statement)

        yield Market("postgresql", "postgresql+psycopg://", workspace, execute)
    with server.connect() as owner:
        owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


# ---- a tokenizer and a model of a few thousand weights ---------------------------------------------------------------

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="session")
def chat_tokenizer() -> Any:
    return byte_tokenizer(CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def base_workspace(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer: Any) -> Workspace:
    """Holds models/base/random as the stage base_model leaves it: a random Llama with `chat_tokenizer`."""
    root = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes' blocks of 64 weights
    write_base_manifest(save_llama(root / "models/base/random", chat_tokenizer, **sizes))
    return Workspace(root, root)
