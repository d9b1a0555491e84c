"""`groundtune bench`: which endpoints are meant, and how its errors come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stages.benchmarking.command import endpoints
from stages.cli import app
from stages.core.errors import ConfigError

ONE, TWO = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.mark.parametrize(
    ("urls", "models", "keys", "expected"),
    [
        ([], [], [], {"ours": ("", "", "")}),
        ([ONE], [], ["KEY"], {"127.0.0.1:1": (ONE, "", "KEY")}),
        ([ONE, TWO], ["m"], [], {"127.0.0.1:1": (ONE, "m", ""), "127.0.0.1:2": (TWO, "m", "")}),
        ([ONE], ["m", "n"], [], {"m": (ONE, "m", ""), "n": (ONE, "n", "")}),
        ([], ["tuned", "base"], [], {"tuned": ("", "tuned", ""), "base": ("", "base", "")}),
    ],
)
def test_endpoints(urls: list[str], models: list[str], keys: list[str], expected: dict[str, tuple[str, ...]]) -> None:
    found = endpoints(urls, models, keys)
    assert {name: tuple(e[k] for k in ("base_url", "model", "api_key_env")) for name, e in found.items()} == expected


@pytest.mark.parametrize(
    ("urls", "models", "message"),
    [
        ([ONE, TWO, ONE], [], "--base-url: 3 given"),
        ([ONE, TWO], ["a", "b", "c"], "given"),
        ([ONE, ONE], [], "both endpoints are the same"),
    ],
)
def test_what_does_not_fit_is_refused(urls: list[str], models: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        endpoints(urls, models, [])


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["bench", *args])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--base-url", "localhost:8000"], "give the server's URL"),
        (["--only", "speed"], "benchmark.only: 'speed' is not one of throughput, context"),
        (["--set", "throughput.rounds=1"], "benchmark.throughput.rounds: unknown key"),
        (["--base-url", ONE, "--api-key-env", "sk-secret"], "name of an environment variable"),
        (["--base-url", "http://127.0.0.1:9/v1"], "no answer"),
    ],
)
def test_errors_are_one_message(args: list[str], message: str) -> None:
    done = run(*args)
    assert done.exit_code == 1 and message in done.output
    assert "sk-secret" not in done.output


def test_a_server_is_measured(server: Any, tmp_path: Path) -> None:
    settings = ["throughput.concurrency=[2]", "throughput.num_rounds=2", "throughput.num_requests=2"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = run("--base-url", server.url, "--only", "throughput", *options, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "written to" in done.output
    assert "| 2 clients | 127.0.0.1:" in (tmp_path / "out" / "benchmark.md").read_text()
