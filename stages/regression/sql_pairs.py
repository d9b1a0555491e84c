"""Pairs from a database: correlations of prices, ready values, or what a query returns.

Three ledgers: contracts (a row each), price rows, pairs looked at. Every one of them: read = kept + rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stages.core.errors import DataError
from stages.core.ledger import Ledger
from stages.regression.correlation import Series, correlate, is_constant
from stages.regression.database import Database
from stages.regression.pair_sampling import pairs_by_hash
from stages.regression.pairs import VALUE_DECIMALS, Pair, plain, text_pair
from stages.regression.price_series import PriceLedger, number_of, read_series
from stages.regression.task import PairColumns, SqlSource


@dataclass(frozen=True)
class Contract:
    """text: what the model sees of it."""

    id: str
    text: str
    category: str


@dataclass
class SqlLedgers:
    """What was read of each kind of row."""

    contracts: Ledger = field(default_factory=lambda: Ledger("load_pairs, contracts"))
    prices: PriceLedger = field(default_factory=PriceLedger)
    pairs: Ledger = field(default_factory=lambda: Ledger("load_pairs, pairs"))

    def metrics(self) -> dict[str, Any]:
        kinds: dict[str, Ledger | PriceLedger] = {
            "contracts": self.contracts,
            "price_rows": self.prices,
            "pairs": self.pairs,
        }
        return {name: ledger.metrics() for name, ledger in kinds.items() if ledger.num_read}

    def rejections(self) -> Iterator[Mapping[str, str]]:
        yield from self.contracts.rejections
        yield from self.prices.rows()
        yield from self.pairs.rejections


def read_pairs(source: SqlSource, database: Database, seed: int, ledgers: SqlLedgers) -> Iterator[Pair]:
    """The pairs as they come; whether they are usable is for `pairs.admit`."""
    if source.query:
        return _queried(source, database, ledgers.pairs)
    contracts = _read_contracts(source, database, ledgers.contracts)
    if source.pairs.table:
        pairs = _ready(source, database, contracts, ledgers.pairs)
    else:
        pairs = _correlated(source, database, contracts, seed, ledgers)
    return _with_truth(source, database, pairs)


def _read_contracts(source: SqlSource, database: Database, ledger: Ledger) -> dict[str, Contract]:
    """id -> contract. Rejects empty_id, empty_text (no title), and all contracts of one id (repeated_id)."""
    names = source.contracts
    columns = [names.id, names.title, names.description, names.category, names.closes_at]
    found: dict[str, Contract] = {}
    repeated: set[str] = set()
    for row in database.rows(names.table, columns, source.db_schema, order_by=1):
        ledger.read()
        identifier, title, description, category, closes_at = (plain("" if v is None else str(v)) for v in row)
        if not identifier or not title:
            ledger.reject(f"{names.table} {identifier}", "empty_text" if identifier else "empty_id", title)
        elif identifier in found or identifier in repeated:
            repeated.add(identifier)
            ledger.reject(f"{names.table} {identifier}", "repeated_id", title)
        else:
            text = source.text.format(title=title, description=description, category=category, closes_at=closes_at)
            found[identifier] = Contract(identifier, plain(text), category)
    for identifier in sorted(repeated):
        ledger.reject(f"{names.table} {identifier}", "repeated_id", found.pop(identifier).text)
    return found


def _correlated(
    source: SqlSource, database: Database, contracts: dict[str, Contract], seed: int, ledgers: SqlLedgers
) -> Iterator[Pair]:
    """Pairs with their correlation, in hash order, until `max_pairs` have one; the rest are not looked at."""
    series = _usable_series(source, database, contracts, ledgers)
    ids = sorted(series)
    num_found = 0
    for i, j in pairs_by_hash(ids, seed):
        if source.max_pairs and num_found == source.max_pairs:
            return
        a, b = contracts[ids[i]], contracts[ids[j]]
        ledgers.pairs.read()
        value, reason = correlate(series[a.id], series[b.id], source.series == "changes", source.min_shared_points)
        if reason:
            ledgers.pairs.reject(f"{a.id}--{b.id}", reason)
        else:
            num_found += 1
            yield _pair(a, b, round(value, VALUE_DECIMALS), f"{source.prices.table} {a.id}--{b.id}")


def _usable_series(
    source: SqlSource, database: Database, contracts: dict[str, Contract], ledgers: SqlLedgers
) -> dict[str, Series]:
    """Series that can correlate with any; contracts without one are rejected (too_few_points, constant_series)."""
    names = source.prices
    rows = database.rows(names.table, [names.contract_id, names.at, names.price], source.db_schema, order_by=1)
    usable: dict[str, Series] = {}
    reasons = dict.fromkeys(contracts, ("too_few_points", "no prices"))
    for identifier, series in read_series(rows, set(contracts), ledgers.prices):
        if len(series.at) < source.min_shared_points:
            reasons[identifier] = ("too_few_points", f"{len(series.at)} of {source.min_shared_points}")
        elif is_constant(series.price):
            reasons[identifier] = ("constant_series", f"always {series.price[0]}")
        else:
            usable[identifier] = series
            del reasons[identifier]
    for identifier, (reason, detail) in sorted(reasons.items()):
        ledgers.contracts.reject(f"{source.contracts.table} {identifier}", reason, detail)
    return usable


def _ready(source: SqlSource, database: Database, contracts: dict[str, Contract], ledger: Ledger) -> Iterator[Pair]:
    """Pairs of a table that holds their values. Rejects unknown_contract."""
    for a_id, b_id, value in _value_rows(source.pairs, source.db_schema, database):
        ledger.read()
        origin = f"{source.pairs.table} {a_id}--{b_id}"
        if a_id in contracts and b_id in contracts:
            yield _pair(contracts[a_id], contracts[b_id], round(value, VALUE_DECIMALS), origin)
        else:
            ledger.reject(origin, "unknown_contract", b_id if a_id in contracts else a_id)


def _value_rows(names: PairColumns, schema: str, database: Database) -> Iterator[tuple[str, str, float]]:
    for a_id, b_id, value in database.rows(names.table, [names.a, names.b, names.value], schema, order_by=3):
        yield plain(str(a_id)), plain(str(b_id)), number_of(value)


def _pair(a: Contract, b: Contract, value: float, origin: str) -> Pair:
    category = "/".join(sorted({a.category, b.category} - {""}))
    return Pair(f"{a.id}--{b.id}", a.id, b.id, a.text, b.text, value, category, origin=origin)


def _with_truth(source: SqlSource, database: Database, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """Adds the true values where the source has a table of them; without one the pairs stay as they are."""
    if not source.truth.table:
        yield from pairs
        return
    held = list(pairs)  # read before the next table: some drivers stream one result at a time
    truth = {frozenset((a, b)): value for a, b, value in _value_rows(source.truth, source.db_schema, database)}
    for pair in held:
        yield replace(pair, true_value=truth.get(frozenset((pair.a_id, pair.b_id))))


QUERY_COLUMNS = ("a", "b", "value")


def _queried(source: SqlSource, database: Database, ledger: Ledger) -> Iterator[Pair]:
    """Pairs of a query with columns a, b, value and, where it has them, a_id, b_id, category, rationale."""
    for number, row in enumerate(database.query(source.query), start=1):
        if missing := [name for name in QUERY_COLUMNS if name not in row]:
            raise DataError(f"{database.name}: sql.query returns no column {', '.join(missing)}")
        ledger.read()
        texts = {name: plain(str(value)) for name, value in row.items() if value is not None}
        yield text_pair(texts, number_of(row["value"]), f"query:{number}")
