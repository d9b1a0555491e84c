"""A database, read only, in a stream; what goes wrong is said with the database's name and never with its password.

with connect("postgresql://localhost/market", workspace) as database:
    for contract_id, at, price in database.rows("prices", ["contract_id", "at", "price"], order_by=2): ...
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.expression import Executable

ROWS_AT_ONCE = 5_000
CONNECT_TIMEOUT_S = 15
POSTGRESQL = "postgresql"
FROM_ENVIRONMENT = {
    "host": "PGHOST",
    "port": "PGPORT",
    "database": "PGDATABASE",
    "username": "PGUSER",
    "password": "PGPASSWORD",
}


@dataclass(frozen=True)
class Database:
    """An open connection; `name` says which, for messages; `secrets` stay out of them."""

    connection: Connection
    name: str
    secrets: tuple[str, ...]

    def columns(self, table: str, schema: str = "") -> set[str]:
        """The columns of a table or view. Raises DataError where there is no such table."""
        from sqlalchemy import inspect
        from sqlalchemy.exc import NoSuchTableError

        try:
            with self.explained(f"looking at table {table}"):
                return {column["name"] for column in inspect(self.connection).get_columns(table, schema or None)}
        except NoSuchTableError:
            raise DataError(f"{self.name}: there is no table {_dotted(schema, table)}") from None

    def rows(
        self, table: str, columns: Sequence[str], schema: str = "", order_by: int = 0
    ) -> Iterator[tuple[Any, ...]]:
        """These columns of every row, ordered by the first `order_by` of them ("" stands for a column of NULLs).

        Raises DataError naming the table or the columns that are missing, or what the database says.
        """
        import sqlalchemy as sql

        if missing := sorted({name for name in columns if name} - self.columns(table, schema)):
            raise DataError(f"{self.name}: table {_dotted(schema, table)} has no column {', '.join(missing)}")
        # Columns without a type: values come as the driver gives them, and a broken one is ours to reject.
        wanted = [sql.column(name) if name else sql.null() for name in columns]
        source = sql.table(table, schema=schema or None)
        statement = sql.select(*wanted).select_from(source).order_by(*wanted[:order_by])
        yield from self._stream(statement, f"reading table {_dotted(schema, table)}")

    def query(self, text: str) -> Iterator[Mapping[str, Any]]:
        """The rows of a query of the user's. Raises DataError with what the database says."""
        import sqlalchemy as sql

        columns: list[str] = []
        for row in self._stream(sql.text(text), "running sql.query", columns):
            yield dict(zip(columns, row, strict=True))

    def _stream(self, statement: Executable, doing: str, columns: list[str] | None = None) -> Iterator[tuple[Any, ...]]:
        """Rows through a server-side cursor where there is one; `columns` is filled with their names."""
        with self.explained(doing):
            result = self.connection.execute(statement, execution_options={"yield_per": ROWS_AT_ONCE})
            if columns is not None:
                columns.extend(result.keys())
            for row in result:
                yield tuple(row)

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turns what the database raises into a DataError without secrets."""
        with _explained(self.name, doing, self.secrets):
            yield


@contextmanager
def connect(url: str, workspace: Workspace, environment: Mapping[str, str] = os.environ) -> Iterator[Database]:
    """A read-only connection; in PostgreSQL all reads see one moment of the database.

    url: SQLAlchemy's; sqlite paths are the workspace's. Raises ConfigError (URL, driver), DataError (connection).
    """
    resolved = resolve_url(url, environment)
    secrets = tuple(
        secret
        for secret in (resolved.password, quote(resolved.password or "", safe=""))
        if secret is not None and secret
    )
    name = resolved.render_as_string(hide_password=True)
    engine = _engine(resolved, workspace)
    try:
        with _explained(name, "connecting", secrets):
            connection = engine.connect()
        with connection:
            yield Database(connection, name, secrets)
    finally:
        engine.dispose()


def resolve_url(url: str, environment: Mapping[str, str]) -> URL:
    """The URL with what it leaves out: PostgreSQL's from the PG* variables, of other servers the password alone."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("sql.url: not a database URL such as sqlite:///file or postgresql://host/name") from None
    if parsed.drivername == POSTGRESQL:
        parsed = parsed.set(drivername=f"{POSTGRESQL}+psycopg")
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed
    wanted = FROM_ENVIRONMENT if backend == POSTGRESQL else {"password": "PGPASSWORD"}
    given = {
        key: environment[name] for key, name in wanted.items() if not getattr(parsed, key) and environment.get(name)
    }
    port = given.pop("port", None)
    if port is not None and not port.isdecimal():
        raise ConfigError(f"PGPORT: {port!r} is no port number")
    return parsed.set(**given, **({"port": int(port)} if port else {}))  # type: ignore[arg-type]


def _engine(url: URL, workspace: Workspace) -> Engine:
    import sqlalchemy as sql
    from sqlalchemy.exc import NoSuchModuleError

    options: dict[str, Any] = {"poolclass": sql.NullPool, "hide_parameters": True}
    backend = url.get_backend_name()
    if backend == "sqlite":
        path = _sqlite_path(url, workspace)
        return sql.create_engine("sqlite://", creator=lambda: _open_sqlite(path), **options)
    if backend == POSTGRESQL:
        options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT_S}
        options["execution_options"] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    try:
        return sql.create_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"sql.url: no driver for {url.drivername}: {error}; install one") from None


def _sqlite_path(url: URL, workspace: Workspace) -> Path:
    if not url.database or url.database == ":memory:":
        raise ConfigError("sql.url: a SQLite URL needs a file, as in sqlite:///data/contracts/raw/contracts.sqlite")
    return workspace.read(url.database)


def _open_sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT_S)


@contextmanager
def _explained(name: str, doing: str, secrets: Sequence[str]) -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

    try:
        yield
    except NoSuchTableError:
        raise
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = " ".join(str(cause).split())
        # Without its cause: a driver's error may carry the whole connection string.
        raise DataError(f"{name}: {doing} failed: {redact(said, secrets)}") from None


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` with every secret as ***, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _dotted(schema: str, table: str) -> str:
    return f"{schema}.{table}" if schema else table
