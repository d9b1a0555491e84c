"""`groundtune`: what is not a stage of the pipeline. Only wiring; each command lives where it belongs.

Exit codes: 0 done; 1 something the user can mend (one message on stderr); 2 wrong usage.
Modules imported here stay light, so that --help is there at once.
"""

from __future__ import annotations

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
    """Turns our errors into one message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GroundtuneError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


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


for command in (new, convert, commands.chat, commands.ask, headline.report):
    app.command()(command)
app.add_typer(knowledge_app(lambda domain: _params("domain", domain), Workspace()), name="kb")
app.add_typer(sft_app(lambda domain: _params("domain", domain), Workspace()), name="sft")
app.command("adopt")(adopt_command(lambda overrides: _compose(overrides)))
app.command("compare")(compare_command(lambda domain: _params("domain", domain), Workspace()))
app.command("bench")(bench_command(lambda domain: _params("domain", domain), Workspace()))
app.command("release")(release_command(lambda: str(_params("domain", "")["domain"]["name"]), Workspace()))
app.command("explain")(explain_command(Workspace()))
app.command("verify")(verify_command(Workspace()))
app.command("gc")(gc_command(Workspace()))
app.command("review")(review_command(lambda: _params("domain", "")["review"], Workspace()))
app.command("predict")(predict_command(lambda task: _params("regression", task)["predict"]))
app.command("monitor")(monitor_command(lambda: _params("domain", "")["serve"]))
app.command("vllm")(vllm_command(Workspace()))
app.command("serve")(serve_command(lambda domain: _params("domain", domain)))


@app.command()
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


if __name__ == "__main__":
    app()
