"""Reading a database: in a stream, the same from both kinds, and errors that name everything but the password."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.regression.database import ROWS_AT_ONCE, connect, redact, resolve_url

SECRET = "s3cret/pa:ss@word"


def test_rows_come_whole_and_in_order(market: Any) -> None:
    market.create()
    rows = [(f"c{n % 7}", f"2031-01-{1 + n % 28:02d}", n / 8) for n in range(ROWS_AT_ONCE + 17)]
    market.execute("INSERT INTO prices VALUES (?, ?, ?)", rows)
    with connect(market.url, market.workspace) as database:
        read = list(database.rows("prices", ["contract_id", "at", "price"], order_by=3))
    assert read == sorted(rows)


def test_a_column_without_a_name_is_nulls(market: Any) -> None:
    market.create()
    market.add_contract("c1", "One")
    with connect(market.url, market.workspace) as database:
        assert list(database.rows("contracts", ["id", "", "title"])) == [("c1", None, "One")]


def test_rows_are_not_held_in_memory(market: Any) -> None:
    market.create()
    market.execute("INSERT INTO prices VALUES (?, ?, ?)", [("c", "2031-01-01", 0.5)] * (ROWS_AT_ONCE * 3))
    with connect(market.url, market.workspace) as database:
        rows = database.rows("prices", ["contract_id", "price"])
        assert next(rows) == ("c", 0.5)
        rows.close()  # type: ignore[attr-defined]  # the rest was never asked for; the connection is usable again
        assert len(list(database.rows("contracts", ["id"]))) == 0


def test_a_missing_table_and_column_are_named(market: Any) -> None:
    market.create()
    with connect(market.url, market.workspace) as database:
        with pytest.raises(DataError, match="there is no table quotes"):
            list(database.rows("quotes", ["price"]))
        with pytest.raises(DataError, match="table prices has no column cost, day"):
            list(database.rows("prices", ["day", "price", "cost"]))


def test_a_query_that_fails_says_why(market: Any) -> None:
    with (
        connect(market.url, market.workspace) as database,
        pytest.raises(DataError, match=r"sql\.query failed.*nowhere"),
    ):
        list(database.query("SELECT a FROM nowhere"))


def test_nothing_can_be_written(market: Any) -> None:
    market.create()
    with (
        connect(market.url, market.workspace) as database,
        pytest.raises(DataError, match=r"trying failed.*read.?only"),
        database.explained("trying"),
    ):
        database.connection.exec_driver_sql("INSERT INTO contracts (id) VALUES ('x')")


def test_postgresql_reads_one_moment(market: Any) -> None:
    market.create()
    if market.kind != "postgresql":
        pytest.skip("SQLite locks instead")
    with connect(market.url, market.workspace) as database:
        assert list(database.rows("contracts", ["id"])) == []
        market.add_contract("late", "Late")
        assert list(database.rows("contracts", ["id"])) == []


def test_a_schema_of_its_own(market: Any) -> None:
    if market.kind != "postgresql":
        pytest.skip("SQLite has no schemas")
    market.execute("CREATE SCHEMA desk", [])
    market.execute("CREATE TABLE desk.quotes (price INT)", [])
    market.execute("INSERT INTO desk.quotes VALUES (?)", [(3,)])
    with connect(market.url, market.workspace) as database:
        assert list(database.rows("quotes", ["price"], schema="desk")) == [(3,)]
        with pytest.raises(DataError, match=r"no table desk\.trades"):
            list(database.rows("trades", ["price"], schema="desk"))


def test_a_lost_connection_is_said_without_the_password(market: Any, postgres: Any) -> None:
    if market.kind != "postgresql":
        pytest.skip("a file is not lost")
    market.create()
    market.execute("INSERT INTO prices VALUES (?, ?, ?)", [("c", "2031-01-01", 0.5)] * (ROWS_AT_ONCE * 3))
    with (
        pytest.raises(DataError, match="reading table prices failed") as caught,
        connect(market.url, market.workspace) as d,
    ):
        rows = d.rows("prices", ["contract_id", "price"])
        next(rows)
        with postgres.connect() as owner:
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'market_%'")
        list(rows)
    assert SECRET not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("password", ["wrong-one", "wr/on:g@"])
def test_a_refused_login_shows_host_and_database_but_no_password(
    postgres: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str
) -> None:
    environment = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "owner", "PGPASSWORD": password}
    with (
        pytest.raises(DataError, match=r"connecting failed.*password authentication failed") as caught,
        connect("postgresql:///market", Workspace(tmp_path, tmp_path), environment),
    ):
        pass
    assert f"owner:***@127.0.0.1:{postgres.port}/market" in str(caught.value)
    shown = str(caught.value) + repr(caught.value.__cause__)
    assert password not in shown
    assert quote(password, safe="") not in shown


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    environment = {"PGHOST": "127.0.0.1", "PGPORT": "1", "PGUSER": "me", "PGPASSWORD": SECRET, "PGDATABASE": "market"}
    with (
        pytest.raises(DataError, match=r"me:\*\*\*@127\.0\.0\.1:1/market: connecting failed") as caught,
        connect("postgresql://", Workspace(tmp_path, tmp_path), environment),
    ):
        pass
    assert SECRET not in str(caught.value)


def test_the_environment_fills_only_what_the_url_leaves_out() -> None:
    environment = {"PGHOST": "there", "PGPORT": "6000", "PGDATABASE": "d", "PGUSER": "u", "PGPASSWORD": "p"}
    url = resolve_url("postgresql://me@here/market", environment)
    assert (url.drivername, url.username, url.host, url.port) == ("postgresql+psycopg", "me", "here", 6000)
    assert (url.database, url.password) == ("market", "p")
    assert resolve_url("sqlite:///file", environment).password is None
    assert resolve_url("mysql+pymysql://me@h/d", environment).render_as_string(hide_password=False).count(":p@") == 1


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("not a url", {}, "not a database URL"),
        ("postgresql://h/d", {"PGPORT": "five"}, "PGPORT"),
    ],
)
def test_a_broken_url_is_refused(url: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_url(url, environment)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("sqlite:///missing.sqlite", DataError, "missing.sqlite: no such file"),
        ("sqlite://", ConfigError, "needs a file"),
        ("oracle+oracledb://h/d", ConfigError, "no driver for oracle"),
        ("fancy://h/d", ConfigError, "no driver for fancy"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), connect(url, Workspace(tmp_path, tmp_path), {}):
        pass
    assert list(tmp_path.iterdir()) == []  # SQLite would have made an empty database


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "file.sqlite").write_text("hello " * 100)
    with (
        connect("sqlite:///file.sqlite", Workspace(tmp_path, tmp_path)) as database,
        pytest.raises(DataError, match="not a database"),
    ):
        database.columns("contracts")


def test_a_path_with_signs_that_mean_something_in_urls(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "50% of #1.sqlite")) as made:
        made.execute("CREATE TABLE t (x)")
    with connect("sqlite:///50% of #1.sqlite", Workspace(tmp_path, tmp_path)) as database:
        assert database.columns("t") == {"x"}


@pytest.mark.parametrize(
    ("text", "secrets", "redacted"),
    [
        ("host=h password=abc", ("abc",), "host=h password=***"),
        ("abcdef abc", ("abc", "abcdef"), "*** ***"),
        ("nothing", (), "nothing"),
    ],
)
def test_redaction(text: str, secrets: tuple[str, ...], redacted: str) -> None:
    assert redact(text, secrets) == redacted
