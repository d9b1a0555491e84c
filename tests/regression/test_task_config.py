"""A task's config refuses what cannot work, by its key; above all a password."""

from __future__ import annotations

from typing import Any

import pytest

from stages.core.config import parse_section
from stages.core.errors import ConfigError
from stages.regression.task import RegressionTask

VALID: dict[str, Any] = {
    "name": "t",
    "raw": "data/t/raw",
    "json_field": "score",
    "low": 0,
    "high": 5,
    "decimals": 1,
    "tolerance": 0.5,
    "prompt": {"system": "s", "system_with_neighbours": "{neighbours}", "neighbour": "{a}{b}{value}", "pair": "{a}{b}"},
    "source": "files",
    "files": {"files": {"all": "pairs.csv"}, "fields": {"a": "x", "b": "y", "value": "z"}},
}


def parse(**changes: Any) -> RegressionTask:
    return parse_section(RegressionTask, {**VALID, **changes}, "regression")


def test_a_valid_task() -> None:
    assert not parse().signed
    assert parse(low=-1).signed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 5}, r"\[5.0, 5.0\] is no range"),
        ({"high": float("nan")}, "is no range"),
        ({"low": 0.25}, "low: 0.25 cannot be written with 1 decimals"),
        ({"decimals": 9}, "decimals: 9"),
        ({"tolerance": 0}, "tolerance: 0.0 is not between"),
        ({"tolerance": 5}, "tolerance: 5.0 is not between"),
        ({"json_field": ""}, "json_field"),
        ({"rationale_field": "score"}, "differently from rationale_field"),
        ({"source": "web"}, "source: 'web' is not one of sql, files"),
        ({"source": "sql"}, "sql.url: a sql source needs one"),
        ({"split": "official"}, "an official split needs train, validation, test"),
        ({"source": "sql", "split": "official", "sql": {"url": "sqlite:///x"}}, "only files bring"),
        ({"files": {"files": {}, "fields": {}}}, "any other at least one file"),
        ({"prompt": {**VALID["prompt"], "pair": "{a}"}}, r"prompt.pair: the placeholder \{b\} is missing"),
        ({"prompt": {**VALID["prompt"], "pair": "{a}{b}{c}"}}, r"prompt.pair: unknown placeholder \{c\}"),
        ({"prompt": {**VALID["prompt"], "pair": "{a}{b}{a.real}"}}, "unknown placeholder"),
        ({"prompt": {**VALID["prompt"], "system": "JSON: {"}}, "write a brace of the text itself twice"),
        ({"sql": {"series": "returns"}}, "sql.series"),
        ({"sql": {"min_shared_points": 2}}, "at least 3 points"),
        ({"sql": {"url": "contracts.sqlite"}}, "not a database URL"),
        ({"sql": {"surprise": 1}}, "unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(**changes)


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@h/d", "postgresql://:hunter2@h", "postgresql://h/d?password=hunter2"]
)
def test_a_password_in_the_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        parse(sql={"url": url})
    assert "hunter2" not in str(caught.value)
