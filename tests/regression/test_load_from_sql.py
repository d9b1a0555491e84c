"""load_pairs on real databases: the same tables in SQLite and PostgreSQL give the same files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import ROOT
from stages.load_pairs import Config, run
from stages.regression.task import PairColumns, PairPrompt, RegressionTask, SqlSource

PROMPT = PairPrompt("s", "{neighbours}", "{a}{b}{value}", "{a}{b}")
PARTS = ("train", "validation", "test")
NUM_CONTRACTS = 40
NUM_DAYS = 20


def config(url: str, **sql: Any) -> Config:
    source = SqlSource(url=url, **{"min_shared_points": 10, **sql})
    task = RegressionTask(
        name="contracts", raw="raw", json_field="correlation", low=-1.0, high=1.0, decimals=2, tolerance=0.2, prompt=PROMPT,
        source="sql", sql=source,
    )  # fmt: skip
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    return Config(
        task=task, seed=3, split=shares, max_pairs=dict.fromkeys(PARTS, 0), conflicting_values="reject",
        max_rejected_share=0.5,
    )  # fmt: skip


def prices(number: int) -> list[float]:
    random = np.random.default_rng(number)
    return [round(x, 6) for x in random.uniform(size=NUM_DAYS)]


def fill(market: Any, prices_time: str = "TEXT") -> None:
    market.create(prices_time)
    for number in range(NUM_CONTRACTS):
        market.add_contract(f"c{number:02d}", f"Title {number}", "even" if number % 2 == 0 else "odd")
        market.add_prices(f"c{number:02d}", prices(number))


def pairs_of(market: Any, split: str = "by_pair") -> list[dict[str, Any]]:
    folder = market.workspace.outputs / "data/contracts/pairs" / split
    return [row for part in PARTS for row in read_jsonl(folder / f"{part}.jsonl")]


def rejected(market: Any) -> dict[str, str]:
    rows = read_jsonl(market.workspace.outputs / "data/contracts/pairs/rejected.jsonl")
    return {row["origin"]: row["reason"] for row in rows}


@pytest.mark.parametrize("series", ["changes", "levels"])
def test_values_are_the_correlations_of_the_prices(market: Any, series: str) -> None:
    fill(market)
    metrics = run(config(market.url, series=series), market.workspace)
    rows = pairs_of(market)
    assert len(rows) == NUM_CONTRACTS * (NUM_CONTRACTS - 1) // 2
    for row in rows[:: len(rows) // 25]:
        a, b = (np.array(prices(int(row[side][1:]))) for side in ("a_id", "b_id"))
        a, b = (np.diff(a), np.diff(b)) if series == "changes" else (a, b)
        assert row["value"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
        assert row["a"] == f"Title {int(row['a_id'][1:])}."
        assert row["category"] in ("even", "odd", "even/odd")
    assert metrics["price_rows"]["num_kept"] == NUM_CONTRACTS * NUM_DAYS
    assert metrics["pairs"] == {"num_read": len(rows), "num_kept": len(rows), "num_rejected": 0, "rejected": {}}


@pytest.mark.parametrize("prices_time", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"])
def test_columns_of_other_types_give_the_same_pairs(market: Any, prices_time: str) -> None:
    if market.kind == "sqlite" and prices_time != "DATE":
        pytest.skip("SQLite keeps every time as text")
    fill(market, prices_time)
    run(config(market.url, min_shared_points=NUM_DAYS), market.workspace)
    assert len(pairs_of(market)) == NUM_CONTRACTS * (NUM_CONTRACTS - 1) // 2


def test_both_kinds_of_database_give_the_same_bytes(market: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    fill(market)
    run(config(market.url), market.workspace)
    splits = (market.workspace.outputs / "data/contracts/pairs/splits.json").read_text()
    assert "sha256" in splits
    kept = tmp_path_factory.getbasetemp() / "splits-of-the-first-kind.json"
    if not kept.exists():
        kept.write_text(splits)
    assert kept.read_text() == splits
    run(config(market.url), market.workspace)  # and so does a second run
    assert (market.workspace.outputs / "data/contracts/pairs/splits.json").read_text() == splits


def test_bad_rows_are_counted_by_reason(market: Any) -> None:
    fill(market)
    market.add_contract("empty", "  ")
    market.add_prices("empty", prices(1))
    market.add_contract("twice", "Title of two")
    market.add_contract("twice", "Another")
    market.add_contract("flat", "Flat")
    market.add_prices("flat", [0.5] * NUM_DAYS)
    market.add_contract("short", "Short")
    market.add_prices("short", prices(2)[:5])
    market.add_contract("silent", "Silent")
    market.add_contract("later", "Later")
    market.add_prices("later", prices(3), first_day=200)
    market.add_prices("c00", [None, math.nan if market.kind == "postgresql" else None], first_day=90)
    metrics = run(config(market.url), market.workspace)
    reasons = rejected(market)
    assert reasons["contracts empty"] == "empty_text"
    assert reasons["contracts twice"] == "repeated_id"
    assert reasons["contracts flat"] == "constant_series"
    assert reasons["contracts short"] == reasons["contracts silent"] == "too_few_points"
    assert reasons["prices of c00"] == "not_a_number"
    assert metrics["contracts"]["rejected"] == {
        "constant_series": 1,
        "empty_text": 1,
        "repeated_id": 2,
        "too_few_points": 2,
    }
    assert metrics["price_rows"]["rejected"] == {"not_a_number": 2, "unknown_contract": NUM_DAYS}
    assert metrics["pairs"]["rejected"] == {"no_shared_points": NUM_CONTRACTS}
    for ledger in (metrics["contracts"], metrics["price_rows"], metrics["pairs"]):
        assert ledger["num_read"] == ledger["num_kept"] + ledger["num_rejected"]


def test_a_ready_table_of_values(market: Any) -> None:
    fill(market)
    market.execute("CREATE TABLE pairs (one TEXT, two TEXT, corr DOUBLE PRECISION)", [])
    good = [(f"c{a:02d}", f"c{b:02d}", (a - b) / 100) for b in range(NUM_CONTRACTS) for a in range(b)]
    bad = [
        ("c00", "c00", 1.0),  # with itself
        ("c01", "c00", -0.01),  # the mirror of c00, c01 with the same value
        ("c03", "c02", 0.7),  # the mirror of c02, c03 with another
        ("c00", "nobody", 0.1),
        ("c00", "c39", None),
        ("c05", "c06", 1.5),
    ]
    market.execute("INSERT INTO pairs VALUES (?, ?, ?)", [*good, *bad])
    columns = PairColumns(table="pairs", a="one", b="two", value="corr")
    metrics = run(config(market.url, pairs=columns), market.workspace)
    assert metrics["pairs"]["rejected"] == {
        "conflicting_values": 2,
        "duplicate": 1,
        "not_a_number": 1,
        "out_of_range": 1,
        "pair_with_itself": 1,
        "unknown_contract": 1,
    }
    assert metrics["pairs"]["num_read"] == len(good) + len(bad)
    values = {row["id"]: row["value"] for row in pairs_of(market)}
    assert values["c05--c06"] == -0.01
    assert "price_rows" not in metrics


def test_a_query_with_texts(market: Any) -> None:
    market.execute("CREATE TABLE scores (x TEXT, y TEXT, score DOUBLE PRECISION)", [])
    rows = [(f"text {a}", f"text {b}", (a - b) / 50) for b in range(40) for a in range(b)]
    market.execute("INSERT INTO scores VALUES (?, ?, ?)", [*rows, ("", "text 1", 0.1), (None, "text 1", 0.1)])
    metrics = run(config(market.url, query="SELECT x AS a, y AS b, score AS value FROM scores"), market.workspace)
    assert metrics["pairs"]["rejected"] == {"empty_text": 2}
    assert {(row["a"], row["b"], row["value"]) for row in pairs_of(market)} == set(rows)
    with pytest.raises(DataError, match="returns no column b, value"):
        run(config(market.url, query="SELECT x AS a FROM scores"), market.workspace)


def test_true_values_are_attached(market: Any) -> None:
    fill(market)
    market.execute("CREATE TABLE truth (a TEXT, b TEXT, value DOUBLE PRECISION)", [])
    market.execute("INSERT INTO truth VALUES (?, ?, ?)", [("c01", "c00", 0.25)])
    run(config(market.url, truth=PairColumns(table="truth", a="a", b="b")), market.workspace)
    found = {frozenset((row["a_id"], row["b_id"])): row["true_value"] for row in pairs_of(market)}
    assert found[frozenset(("c00", "c01"))] == 0.25
    assert found[frozenset(("c00", "c02"))] is None


def test_max_pairs_takes_the_first_by_hash(market: Any) -> None:
    fill(market)
    run(config(market.url), market.workspace)
    every = {row["id"]: row["value"] for row in pairs_of(market)}
    metrics = run(config(market.url, max_pairs=300), market.workspace)
    some = {row["id"]: row["value"] for row in pairs_of(market)}
    assert len(some) == metrics["pairs"]["num_read"] == 300
    assert some.items() <= every.items()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE prices", "there is no table prices"),
        ("ALTER TABLE prices RENAME COLUMN price TO cost", "table prices has no column price"),
        ("ALTER TABLE contracts DROP COLUMN title", "table contracts has no column title"),
        ("DELETE FROM prices", "no record was kept"),
    ],
)
def test_a_failure_leaves_what_was_there(market: Any, statement: str, message: str) -> None:
    fill(market)
    run(config(market.url), market.workspace)
    before = {p: p.read_bytes() for p in market.workspace.outputs.rglob("*.json*")}
    market.execute(statement, [])
    with pytest.raises(DataError, match=message):
        run(config(market.url), market.workspace)
    assert {p: p.read_bytes() for p in market.workspace.outputs.rglob("*.json*")} == before
    assert not list(market.workspace.outputs.rglob(".*tmp*"))


def test_the_password_is_in_no_file_and_no_message(
    market: Any, postgres: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    if market.kind != "postgresql":
        pytest.skip("SQLite has none")
    caplog.set_level("DEBUG")
    fill(market)
    run(config(market.url), market.workspace)
    market.execute("DROP TABLE prices", [])
    with pytest.raises(DataError) as caught:
        run(config(market.url), market.workspace)
    written = "".join(p.read_text() for p in market.workspace.outputs.rglob("*.json*"))
    said = "".join(capfd.readouterr()) + caplog.text + str(caught.value)
    for secret in ("s3cret/pa:ss@word", "s3cret%2Fpa%3Ass%40word"):
        assert secret not in written + said


PEAK = """
import json, sys
sys.path.insert(0, "tests/regression")
from pathlib import Path
from stages.core.workspace import Workspace
from test_load_from_sql import config, run
folder = Path(sys.argv[1])
metrics = run(config(sys.argv[2], max_pairs=3000), Workspace(folder, folder))
# VmHWM, not ru_maxrss: that one starts at the memory of the process that forked this one
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(json.dumps({"num_rows": metrics["price_rows"]["num_read"], "peak_mb": peak / 1024}))
"""


@pytest.mark.slow
def test_a_million_price_rows_stay_below_500_mb(market: Any) -> None:
    market.create()
    num_contracts, num_days = 2500, 400
    names = [(f"c{n:04d}", f"Title {n}", "", "", None) for n in range(num_contracts)]
    market.execute("INSERT INTO contracts VALUES (?, ?, ?, ?, ?)", names)
    _insert_many(market, num_contracts, num_days)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(market.workspace.outputs), market.url],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["num_rows"] == num_contracts * num_days
    assert result["peak_mb"] < 500


def _insert_many(market: Any, num_contracts: int, num_days: int) -> None:
    """In the database itself: a million rows through the driver take their time."""
    if market.kind == "postgresql":
        market.execute(
            "INSERT INTO prices SELECT 'c' || lpad(c::text, 4, '0'), (date '2031-01-01' + d)::text, random() "
            f"FROM generate_series(0, {num_contracts - 1}) c, generate_series(0, {num_days - 1}) d",
            [],
        )
        return
    market.execute(
        f"WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {num_contracts - 1}), "
        f"d(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM d WHERE n < {num_days - 1}) "
        "INSERT INTO prices SELECT printf('c%04d', c.n), date('2031-01-01', d.n || ' days'), "
        "abs(random() % 1000000) / 1e6 FROM c, d",
        [],
    )


def test_the_path_of_the_test_module_is_this_one() -> None:
    assert Path(__file__).parent == ROOT / "tests/regression"  # PEAK imports from there
