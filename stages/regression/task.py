"""What is regressed on: where the pairs come from, how they are shown, and which number is written (conf/regression).

A second task is a second config file; nothing in the code knows of correlations.

    {name: sick, field: relatedness, low: 1, high: 5, decimals: 1, source: files, files: {...}, prompt: {...}}
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

from omegaconf import MISSING

from stages.core.schema import one_of

PARTS = ("train", "validation", "test")
SPLITS = ("by_contract", "by_pair")  # what never meets in two parts: a text, or only a pair of texts
MAX_DECIMALS = 6


def check_placeholders(key: str, text: str, needed: tuple[str, ...], known: tuple[str, ...] = ()) -> None:
    """Raises ValueError where a template lacks a placeholder, or has one that nothing fills."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key}: {error}; write a brace of the text itself twice") from error
    for name in needed:
        if name not in found:
            raise ValueError(f"{key}: the placeholder {{{name}}} is missing")
    if unknown := sorted(found - set(needed) - set(known)):
        raise ValueError(f"{key}: unknown placeholder {{{unknown[0]}}}; known: {', '.join(needed + known)}")


@dataclass
class PairPrompt:
    """The texts of a prompt: system message (with or without neighbours), then the pair as the user's turn."""

    system: str = MISSING
    system_with_neighbours: str = MISSING  # has {neighbours}, one after the other
    neighbour: str = MISSING  # a known pair: {a}, {b}, {value}
    pair: str = MISSING  # {a}, {b}

    def __post_init__(self) -> None:
        check_placeholders("prompt.system", self.system, ())
        check_placeholders("prompt.system_with_neighbours", self.system_with_neighbours, ("neighbours",))
        check_placeholders("prompt.neighbour", self.neighbour, ("a", "b", "value"))
        check_placeholders("prompt.pair", self.pair, ("a", "b"))


@dataclass
class ContractColumns:
    """The table of what is paired, and its columns; "" where it has no such column."""

    table: str = "contracts"
    id: str = "id"
    title: str = "title"
    description: str = "description"
    category: str = "category"
    closes_at: str = "closes_at"


@dataclass
class PriceColumns:
    """The table of the series, and its columns."""

    table: str = "prices"
    contract_id: str = "contract_id"
    at: str = "at"
    price: str = "price"


@dataclass
class PairColumns:
    """A table of values by pairs of contract ids; `table` is "" where there is none."""

    table: str = ""
    a: str = "a_id"
    b: str = "b_id"
    value: str = "value"


@dataclass
class SqlSource:
    """Pairs from a database: values computed from prices, or read from `pairs`, or from a query with texts and values.

    url: of SQLAlchemy, without a password. What a postgresql URL leaves out comes from PGHOST, PGPORT, PGDATABASE,
    PGUSER and PGPASSWORD; another database's password from PGPASSWORD too.
    """

    url: str = ""
    db_schema: str = ""  # "": the database's default
    contracts: ContractColumns = field(default_factory=ContractColumns)
    text: str = "{title}. {description}"  # of a contract; also {category} and {closes_at}
    prices: PriceColumns = field(default_factory=PriceColumns)
    pairs: PairColumns = field(default_factory=PairColumns)  # ready values instead of prices
    truth: PairColumns = field(default_factory=PairColumns)  # true values, where somebody knows them
    query: str = ""  # a SELECT with columns a, b, value; instead of all tables
    series: str = "changes"  # correlate changes | levels of the prices
    min_shared_points: int = 30
    max_pairs: int = 0  # values computed, of pairs drawn by hash; 0: all

    def __post_init__(self) -> None:
        one_of(self.series, ("changes", "levels"), "sql.series")
        check_placeholders("sql.text", self.text, ("title",), ("description", "category", "closes_at"))
        if self.min_shared_points < 3:
            raise ValueError("sql.min_shared_points: a correlation needs at least 3 points")
        if self.url:
            self._check_url()

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if not parts.scheme:
            raise ValueError("sql.url: not a database URL such as sqlite:///file or postgresql://host/name")
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError("sql.url: a password there would be committed with params.yaml; set PGPASSWORD instead")


@dataclass
class FileSource:
    """Pairs from files below `raw` (JSONL, JSON, CSV, TSV).

    files: {train, validation, test} for a source with a split of its own, {all} for one without.
    fields: ours (a, b, value; a_id, b_id, category, rationale) -> the files'.
    """

    files: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class RegressionTask:
    """A regression task; `raw` is what DVC watches: the raw files' folder (a database server: data/params.ok)."""

    name: str = MISSING
    raw: str = MISSING
    generators: dict[str, dict[str, int]] = field(default_factory=dict)  # stages that write `raw`; only the demo's
    json_field: str = MISSING  # key of the answer's number
    low: float = MISSING
    high: float = MISSING
    decimals: int = MISSING
    tolerance: float = MISSING  # of the reported accuracy: the share of predictions that are at most so far off
    unit: str = ""
    rationale_field: str = ""  # key of a rationale after the number; "": none
    prompt: PairPrompt = MISSING
    source: str = MISSING  # sql | files
    sql: SqlSource = field(default_factory=SqlSource)
    files: FileSource = field(default_factory=FileSource)
    split: str = "seeded"  # of by_pair: seeded | official (the files' own)
    split_by: str = "contract"  # of by_contract: contract (pairs that mix parts are dropped) | component (whole ones)

    def __post_init__(self) -> None:
        one_of(self.source, ("sql", "files"), "source")
        one_of(self.split, ("seeded", "official"), "split")
        one_of(self.split_by, ("contract", "component"), "split_by")
        self._check_range()
        self._check_source()

    @property
    def signed(self) -> bool:
        """Whether answers may carry a minus sign."""
        return self.low < 0

    def _check_range(self) -> None:
        if not 0 <= self.decimals <= MAX_DECIMALS:
            raise ValueError(f"decimals: {self.decimals} is not between 0 and {MAX_DECIMALS}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low, high: [{self.low}, {self.high}] is no range")
        for key, bound in (("low", self.low), ("high", self.high)):
            if round(Decimal(repr(bound)), self.decimals) != Decimal(repr(bound)):
                raise ValueError(f"{key}: {bound} cannot be written with {self.decimals} decimals")
        if not 0 < self.tolerance < self.high - self.low:
            raise ValueError(f"tolerance: {self.tolerance} is not between 0 and the width of the range")
        if not self.json_field or self.json_field == self.rationale_field:
            raise ValueError("json_field: name it, and differently from rationale_field")

    def _check_source(self) -> None:
        if self.source == "sql" and not self.sql.url:
            raise ValueError("sql.url: a sql source needs one")
        if self.source == "sql" and self.split == "official":
            raise ValueError("split: only files bring an official split")
        if self.source == "files":
            wanted = set(PARTS) if self.split == "official" else None
            if not self.files.files or (wanted and set(self.files.files) != wanted):
                raise ValueError(
                    f"files.files: an official split needs {', '.join(PARTS)}; any other at least one file"
                )
