"""`groundtune monitor`: a running proxy, live in the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Group

Url = Annotated[str, typer.Argument(help="Of the proxy; else the configured address.", show_default=False)]
Every = Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")]
Once = Annotated[bool, typer.Option("--once", help="Look once, print, and end.")]
TIMEOUT_S = 5.0


def monitor_command(section: Callable[[], Mapping[str, Any]]) -> Callable[..., None]:
    """The command. section: `serve` of params.yaml."""

    def monitor(url: Url = "", every: Every = 1.0, once: Once = False) -> None:
        """Show a running proxy: requests, latency, tokens, and with the admin key the recent queries."""
        settings = section()
        root = (url or f"http://{settings['host']}:{settings['port']}").rstrip("/").removesuffix("/v1")
        keys = (os.environ.get(str(settings[name])) for name in ("admin_key_env", "api_key_env"))
        read = reader(root, next((key for key in keys if key), ""))
        if once:
            _print(root, read())
        else:
            _watch(root, read, every)

    return monitor


def reader(root: str, key: str) -> Callable[[], dict[str, Any]]:
    """A function that reads /stats. It raises DataError where nobody answers, ConfigError for a key that is refused."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def read() -> dict[str, Any]:
        try:
            response = httpx.get(f"{root}/stats", headers=headers, timeout=TIMEOUT_S, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DataError(
                f"{root}: no proxy answers there ({type(error).__name__}); start `groundtune serve`"
            ) from error
        if response.status_code == 401:
            raise ConfigError(f"{root}: wants another key; see serve.admin_key_env and serve.api_key_env")
        try:
            stats: dict[str, Any] = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise DataError(f"{root}: answers, but is no groundtune proxy") from error
        return stats

    return read


def _watch(root: str, read: Callable[[], dict[str, Any]], every_s: float) -> None:
    from rich.live import Live

    with Live(view(root, read()), refresh_per_second=4) as live:
        try:
            while True:
                time.sleep(every_s)
                live.update(view(root, read()))
        except KeyboardInterrupt:
            return


def _print(root: str, stats: dict[str, Any]) -> None:
    from rich.console import Console

    Console().print(view(root, stats))


def view(root: str, stats: Mapping[str, Any]) -> Group:
    """Everything of /stats as tables. Texts of clients are shown without control characters or markup."""
    from rich.console import Group
    from rich.text import Text

    chunks = ", ".join(f"{count:,} chunks of {name}" for name, count in stats["chunks"].items())
    cache = stats["query_cache"]
    lines = [
        f"{root}  up {_duration(stats['uptime_s'])}  {stats['num_active']} at work, {stats['num_waiting']} waiting",
        f"{stats['completion_tokens']:,} tokens written, {stats['tokens_per_s']:.1f}/s in the last minute; "
        f"{stats['prompt_tokens']:,} read",
        f"{chunks}; {cache['num_embedded']:,} queries embedded, {cache['num_cached']:,} known already",
    ]
    if problems := {name: stats[name] for name in ("num_stream_errors", "num_reload_errors") if stats[name]}:
        lines.append(
            f"broken streams {problems.get('num_stream_errors', 0)}, reloads that failed "
            f"{problems.get('num_reload_errors', 0)}"
        )
    return Group(*(Text(line) for line in lines), _requests(stats), *_recent(stats))


def _requests(stats: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "requests", "p50", "p90", "p99", box=None, padding=(0, 2, 0, 0))
    times = {**stats["latency_s"], "retrieval": stats["retrieval_s"], "first token": stats["first_token_s"]}
    for name, quantiles in times.items():
        counts = stats["num_requests"].get(name, {})
        counted = "  ".join(f"{count:,} x {status}" for status, count in counts.items())
        cells = [f"{1000 * quantiles[q]:,.0f} ms" if q in quantiles else "-" for q in ("p50", "p90", "p99")]
        table.add_row(Text(name), counted, *cells)
    return table


def _recent(stats: Mapping[str, Any]) -> list[Any]:
    """Nothing without the admin key."""
    from rich.table import Table
    from rich.text import Text

    from stages.serving.terminal import printable

    if not stats["recent"]:
        return []
    table = Table("at", "model", "documents", "nearest", "tokens", "time", "", "query", box=None, padding=(0, 2, 0, 0))
    for row in stats["recent"][:15]:
        nearest = "-" if row["nearest"] is None else f"{row['nearest']:.3f}"
        query = printable(" ".join(row["query"].split()))[:80] or f"({row['query_chars']} characters)"
        at = time.strftime("%H:%M:%S", time.localtime(row["at"]))
        cells = [at, row["model"], row["num_documents"], nearest, row["num_completion_tokens"]]
        table.add_row(*(Text(str(cell)) for cell in [*cells, f"{row['elapsed_s']:.2f} s", row["status"], query]))
    return [table]


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
