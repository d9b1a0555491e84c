"""`groundtune`: what is not a stage of the pipeline. Only wiring; each command lives where it belongs.

Exit codes: 0 done; 1 something the user can mend (one message on stderr); 2 wrong usage.
Modules imported here stay light, so that --help is there at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stages.benchmarking.command import bench_command
from stages.core.errors import GroundtuneError
from stages.core.process import quiet_environment
from stages.core.workspace import Workspace
from stages.serving import commands, headline
from stages.serving.adopt_command import adopt_command
from stages.serving.compare_command import compare_command
from stages.serving.convert_command import convert
from stages.serving.doctor.command import doctor as print_diagnosis
from stages.serving.explain_command import explain_command
from stages.serving.gc_command import gc_command
from stages.serving.kb_command import knowledge_app
from stages.serving.monitor_command import monitor_command
from stages.serving.new_command import new
from stages.serving.predict_command import predict_command
from stages.serving.proxy.command import serve_command
from stages.serving.release_command import release_command
from stages.serving.review.command import review_command
from stages.serving.sft_command import sft_app
from stages.serving.verify_command import verify_command
from stages.serving.vllm_command import vllm_command


class Commands(TyperGroup):
    """Turns our errors into one message and exit code 1; lists the commands in the order of COMMANDS."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GroundtuneError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for members in COMMANDS.values() for name in members]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main() -> None:
    """From raw material to a grounded, fine-tuned model. `dvc repro` builds it; these commands use it."""
    quiet_environment()


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False) -> None:
    """Say what this machine can do, and whether the configured pipeline can run on it."""
    print_diagnosis(_params_difference, as_json)


def _compose(overrides: list[str]) -> None:
    from stages.compose import write_params

    write_params(overrides)


def _params_difference() -> list[str]:
    from stages.compose import stale_lines
    from stages.core.stage import PARAMS, read_params

    return stale_lines(read_params(), PARAMS.read_text(encoding="utf-8"))


def _params(group: str, choice: str) -> dict[str, Any]:
    """params.yaml, or as conf/ composes to it with another choice of this group ("": the configured one)."""
    from stages.core.stage import read_params

    params = read_params()
    if choice in ("", params[group]["name"]):
        return params
    from omegaconf import OmegaConf

    from stages.compose import compose

    overrides = [str(item) for item in params.get("overrides") or []]
    others = [item for item in overrides if not item.startswith((f"{group}=", f"{group}."))]
    composed = OmegaConf.to_container(compose([*others, f"{group}={choice}"]))
    return dict(composed)  # type: ignore[arg-type]  # a mapping, as configurations are


def _of_domain(domain: str) -> dict[str, Any]:
    return _params("domain", domain)


def _section(name: str) -> dict[str, Any]:
    return dict(_of_domain("")[name])


HERE = Workspace()
COMMANDS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Begin": {"new": new, "convert": convert, "doctor": doctor},
    "Material": {"kb": knowledge_app(_of_domain, HERE), "sft": sft_app(_of_domain, HERE)},
    "Ask": {
        "chat": commands.chat,
        "ask": commands.ask,
        "predict": predict_command(lambda task: _params("regression", task)["predict"]),
        "compare": compare_command(_of_domain, HERE),
    },
    "Experiments and reviews": {
        "report": headline.report,
        "adopt": adopt_command(_compose),
        "review": review_command(lambda: _section("review"), HERE),
        "explain": explain_command(HERE),
        "verify": verify_command(HERE),
        "gc": gc_command(HERE),
    },
    "Serve": {
        "release": release_command(lambda: str(_section("domain")["name"]), HERE),
        "serve": serve_command(_of_domain),
        "vllm": vllm_command(lambda: str(_section("domain")["name"]), HERE),
        "monitor": monitor_command(lambda: _section("serve")),
        "bench": bench_command(_of_domain, HERE),
    },
}

for panel, members in COMMANDS.items():
    for name, member in members.items():
        if isinstance(member, typer.Typer):
            app.add_typer(member, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(member)


if __name__ == "__main__":
    app()
