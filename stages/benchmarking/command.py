"""`groundtune bench`: the benchmarks of any OpenAI-compatible server, or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace

Params = Callable[[str], Mapping[str, Any]]

BaseUrl = Annotated[
    list[str] | None,
    typer.Option(help="Of a server, such as http://127.0.0.1:8000/v1. Twice: side by side. Else our own is started."),
]
Model = Annotated[
    list[str] | None,
    typer.Option(help="By its name there; one for each server, or two of one server. Else the first that it names."),
]
KeyEnv = Annotated[list[str] | None, typer.Option("--api-key-env", help="The variable that holds the key.")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="throughput, context, writing, coherence, retrieval or pipeline; may be repeated. Else all six."),
]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of conf/benchmark, such as throughput.concurrency=[1,8]; may be repeated."),
]
Out = Annotated[Path | None, typer.Option(help="The folder to write to; else runs/bench/DOMAIN.", show_default=False)]
DomainName = Annotated[str, typer.Option("--domain", help="By its name in conf/domain; else the configured one.")]


def bench_command(params: Params, workspace: Workspace) -> Callable[..., None]:
    """The command. params: from a domain's name ("": the configured one) to params.yaml as it is for it."""

    def bench(
        base_url: BaseUrl = None,
        model: Model = None,
        api_key_env: KeyEnv = None,
        only: Only = None,
        settings: Override = None,
        out: Out = None,
        domain: DomainName = "",
    ) -> None:
        """Measure a server: speed, context, writing, coherence, retrieval, the whole pipeline.

        \b
        groundtune bench --base-url http://127.0.0.1:8000/v1 --only throughput --only context
        groundtune bench --model tuned --model base
        """
        import shlex
        import sys

        from stages.benchmarking.measuring import measure
        from stages.benchmarking.publishing import publish

        section = dict(params(domain)["benchmark"])
        section["endpoints"] = endpoints(base_url or [], model or [], api_key_env or [])
        section["only"] = only or section["only"]
        config = _parsed(section, settings or [])
        found = measure(config, workspace)
        folder = out or workspace.outputs / "runs" / "bench" / config.chat.domain
        publish(folder, found, config.chat.domain, shlex.join(["groundtune", *sys.argv[1:]]))
        if found.stopped:
            raise DataError(f"{found.stopped}; {folder / 'benchmark.md'} holds what was measured, run again to go on")
        typer.echo(f"written to {folder}: benchmark.md, benchmark.json, benchmark.png", err=True)

    return bench


def endpoints(urls: Sequence[str], models: Sequence[str], key_names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name in the report -> settings. One value serves both; none is the default.

    Raises ConfigError where the numbers do not fit, or both are the same.
    """
    num = max(len(urls), len(models), 1)
    for option, values in (("--base-url", urls), ("--model", models), ("--api-key-env", key_names)):
        if len(values) > 2 or len(values) not in (0, 1, num):
            raise ConfigError(f"{option}: {len(values)} given; give none, one, or one for each of two endpoints")
    found = []
    for number in range(num):
        url, model, key = (_of(values, number) for values in (urls, models, key_names))
        found.append({"base_url": url, "model": model, "api_key_env": key})
    if num == 2 and found[0] == found[1]:
        raise ConfigError("both endpoints are the same: give two --base-url or two --model")
    return {_name(endpoint, number, found): endpoint for number, endpoint in enumerate(found)}


def _of(values: Sequence[str], number: int) -> str:
    return values[number % len(values)] if values else ""


def _name(endpoint: Mapping[str, str], number: int, all_of_them: Sequence[Mapping[str, str]]) -> str:
    """As short as tells them apart: the model, else the host and port."""
    from urllib.parse import urlsplit

    if len({e["model"] for e in all_of_them}) == len(all_of_them) and endpoint["model"]:
        return endpoint["model"]
    return urlsplit(endpoint["base_url"]).netloc or ("ours" if endpoint["base_url"] == "" else f"endpoint {number + 1}")


def _parsed(section: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from stages.benchmarking.settings import Config
    from stages.core.config import parse_section

    try:
        merged = OmegaConf.merge(dict(section), OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"--set: {error}") from error
    return parse_section(Config, merged, "benchmark")
