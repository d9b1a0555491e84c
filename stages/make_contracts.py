"""Writes the demo's prediction market: contracts, daily prices and true correlations in a SQLite database.

Reads nothing. Writes <raw>/contracts.sqlite with the tables
    contracts(id, title, description, category, closes_at)
    prices(contract_id, at, price)
    true_correlations(a_id, b_id, correlation)
among them a few flawed contracts and rows that load_pairs has to reject; and
reports/<task>/make_contracts/metrics.json.

    python -m stages.make_contracts
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import new_folder, write_json
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge.invented_words import NUM_RESERVED_WORDS
from stages.regression.demo_contracts import (
    NUM_DAYS,
    Contract,
    daily_prices,
    day,
    factor_changes,
    invent_contracts,
    true_correlations,
)

DATABASE = "contracts.sqlite"
SCHEMA = """
CREATE TABLE contracts (id TEXT, title TEXT, description TEXT, category TEXT, closes_at TEXT);
CREATE TABLE prices (contract_id TEXT, at TEXT, price REAL);
CREATE TABLE true_correlations (a_id TEXT, b_id TEXT, correlation REAL);
"""
NUM_FEW_POINTS = 12
PriceRow = tuple[str, str, float | str | None]


@dataclass
class Config:
    """Mirrors conf/make_contracts."""

    task: str = MISSING
    raw: str = MISSING
    seed: int = MISSING
    num_contracts: int = MISSING  # usable ones

    def __post_init__(self) -> None:
        if not 10 <= self.num_contracts <= NUM_RESERVED_WORDS // 2:  # each has a name of its own, some flawed ones too
            raise ValueError(f"num_contracts: {self.num_contracts} is not between 10 and {NUM_RESERVED_WORDS // 2}")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Writes the database; returns the counts it reports."""
    contracts = invent_contracts(config.seed, config.num_contracts)
    factors = factor_changes(config.seed)
    prices = [
        (contract.id, at, price) for contract in contracts for at, price in daily_prices(config.seed, contract, factors)
    ]
    flawed, flawed_prices = _flaws(contracts, prices)
    truth = list(true_correlations([*contracts, *flawed]))
    with new_folder(workspace.write(config.raw)) as folder:
        _write(folder / DATABASE, [*contracts, *flawed], [*prices, *flawed_prices], truth)
    correlations = [value for _, _, value in truth]
    metrics = {
        "num_contracts": len(contracts),
        "num_flawed_contracts": len(flawed),
        "num_prices": len(prices),
        "num_flawed_prices": len(flawed_prices),
        "true_correlation": {"mean": round(fmean(correlations), 6), "std": round(pstdev(correlations), 6)},
    }
    write_json(workspace.write(f"reports/{config.task}/make_contracts/metrics.json"), metrics)
    return metrics


def _flaws(contracts: list[Contract], prices: list[tuple[str, str, float]]) -> tuple[list[Contract], list[PriceRow]]:
    """What real tables hold beside good rows: contracts without a use, and rows without a price."""
    model = contracts[0]
    of_model = [(at, price) for contract_id, at, price in prices if contract_id == model.id]

    def flawed(number: int, **changes: str) -> Contract:
        return replace(model, id=f"f-{number}", **{"title": f"{model.title} ({number})", **changes})  # type: ignore[arg-type]

    untitled, constant, short, unpriced, late = (flawed(number) for number in range(5))
    twin = flawed(5, title=model.title)  # another listing of the same contract, with a day's price of its own
    untitled = replace(untitled, title="  ")
    rows: list[PriceRow] = [(untitled.id, at, price) for at, price in of_model]
    rows += [(constant.id, at, 0.5) for at, _ in of_model]
    rows += [(short.id, at, price) for at, price in of_model[:NUM_FEW_POINTS]]
    rows += [(late.id, day(NUM_DAYS + number), price) for number, (_, price) in enumerate(of_model)]
    rows += [(twin.id, at, price) for at, price in of_model[1:]]
    rows += [("f-6", at, price) for at, price in of_model[:3]]  # there is no such contract
    rows += list(_flawed_rows(model, of_model))
    return [untitled, constant, short, unpriced, late, twin], rows


def _flawed_rows(model: Contract, of_model: list[tuple[str, float]]) -> Iterator[PriceRow]:
    """Extra rows of a good contract: no price, no number, no day, the same row again, another price for a day."""
    yield model.id, day(NUM_DAYS), None
    yield model.id, day(NUM_DAYS + 1), "n/a"
    yield model.id, "2031-02-30", 0.5
    yield model.id, *of_model[5]
    yield model.id, of_model[9][0], 0.99


def _write(
    path: Path,
    contracts: Iterable[Contract],
    prices: Iterable[PriceRow],
    truth: Iterable[tuple[str, str, float]],
) -> None:
    """The same rows give the same bytes (with the same version of SQLite, which notes itself in the file)."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA journal_mode = OFF;" + SCHEMA)
        database.executemany(
            "INSERT INTO contracts VALUES (?, ?, ?, ?, ?)",
            ((c.id, c.title, c.description, c.theme, c.closes_at) for c in contracts),
        )
        database.executemany("INSERT INTO prices VALUES (?, ?, ?)", prices)
        database.executemany("INSERT INTO true_correlations VALUES (?, ?, ?)", truth)
        database.commit()


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
