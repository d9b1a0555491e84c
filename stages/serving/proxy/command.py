"""`groundtune serve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stages.serving.proxy.service import Service
    from stages.serving.proxy.settings import Config

Host = Annotated[str, typer.Option(help="Another address than the configured one; beyond loopback a key is needed.")]
Port = Annotated[int, typer.Option(min=-1, max=65535, help="Another port; 0 takes a free one.", show_default=False)]
Domains = Annotated[list[str] | None, typer.Option("--domain", help="Domains to serve; the first is the default.")]
UpstreamUrl = Annotated[str, typer.Option("--upstream", help="Base URL of an OpenAI-compatible server, with /v1.")]
UpstreamModel = Annotated[str, typer.Option(help="The model's name there, and here; of a path the last part is.")]
UpstreamKey = Annotated[str, typer.Option(help="Name of the environment variable that holds that server's key.")]
Files = Annotated[str, typer.Option(help="Folder with that model's tokenizer, such as models/export/DOMAIN/VARIANT.")]

Context = Annotated[int, typer.Option(min=0, help="Tokens that server takes, where the model takes more; 0: as many.")]

Sections = Callable[[str], Mapping[str, Any]]  # a domain's name ("": the configured one) -> all sections


def serve_command(sections: Sections) -> Callable[..., None]:
    """The command."""

    def serve(
        host: Host = "",
        port: Port = -1,
        domain: Domains = None,
        upstream: UpstreamUrl = "",
        upstream_model: UpstreamModel = "",
        upstream_key_env: UpstreamKey = "",
        files: Files = "",
        upstream_context: Context = 0,
    ) -> None:
        """Serve the model with its documents: OpenAI's API, in front of a server or of the model in this process."""
        if bool(upstream) != bool(upstream_model):
            raise typer.BadParameter("--upstream and --upstream-model go together")
        from stages.core.stage import load_section
        from stages.serving.proxy.settings import name_for_clients

        settings = load_section("serve")
        changes: dict[str, Any] = {"host": host or None, "domains": domain or None}
        settings |= {key: value for key, value in changes.items() if value is not None}
        if port >= 0:
            settings["port"] = port
        if upstream:
            settings["upstreams"] = {
                "server": {"kind": "openai", "base_url": upstream, "api_key_env": upstream_key_env}
            }
            model = {"upstream": "server", "model": upstream_model, "files": files, "context_tokens": upstream_context}
            settings["models"] = {name_for_clients(upstream_model): model}
        _run(settings, sections)

    return serve


def _run(settings: Mapping[str, Any], sections: Sections) -> None:
    import logging

    from stages.core.config import parse_section
    from stages.core.workspace import Workspace
    from stages.serving.proxy.server import serve
    from stages.serving.proxy.service import Service
    from stages.serving.proxy.settings import Config

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of optional kernels
    config: Config = parse_section(Config, settings, "serve")
    service: Service = Service(
        config, lambda name: sections(name)["chat"], lambda: sections("")["predict"], Workspace()
    )
    serve(service)
