"""`groundtune adopt`: the winner of a sweep becomes the configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.errors import ConfigError
from stages.core.workspace import ROOT

if TYPE_CHECKING:
    from stages.sweeps.adoption import AdoptableJob, Change

Compose = Callable[[list[str]], None]  # writes params.yaml from conf/ with these overrides
REPORTS = ROOT / "reports" / "sweeps"

GROUPS = ("domain", "model", "regression")  # groups of conf/ that decide about settings of many stages
NO_SWEEP = "No sweep yet; for one: python -m stages.train_rag_lora -m +sweep=rank_alpha"

JobArgument = Annotated[
    str, typer.Argument(metavar="[STAGE/SWEEP/JOB]", help="As the sweep's table names it.", show_default=False)
]


def adopt_command(compose: Compose) -> Callable[[str], None]:
    """The command. compose: raises ConfigError where conf/ does not compose."""

    def adopt(job: JobArgument = "") -> None:
        """Write the settings of a sweep's job into conf/, and say what `dvc repro` will run. No job: list the sweeps.

        Seeds are not adopted. Only a finished job can be.

        \b
        groundtune adopt
        groundtune adopt train_rag_lora/rank_alpha/r=8,alpha=16
        """
        from stages.core.stage import read_params
        from stages.sweeps.adoption import changes_of, files_in_force, find_job

        if not job:
            typer.echo(
                "\n".join(list_sweeps(REPORTS)) or "No sweep yet: python -m stages.train_rag_lora -m +sweep=rank_alpha"
            )
            return
        found = find_job(REPORTS, *_parts(job))
        params = read_params()
        overrides = [str(item) for item in params.get("overrides") or []]
        _check_choices(found, params)
        changes = changes_of(found, files_in_force({group: params[group]["name"] for group in GROUPS}))
        dropped = [item for item in overrides if _key(item) in {one.key for one in found.settings}]
        for line in write(changes, [item for item in overrides if item not in dropped], compose):
            typer.echo(line)
        for item in dropped:
            typer.echo(f"params.yaml: no longer composed with {item}")
        if seeds := [item for item in found.left_out if _key(item) not in GROUPS]:
            typer.echo(f"not adopted: {', '.join(seeds)}")
        typer.echo(will_run())

    return adopt


def write(changes: Sequence[Change], overrides: list[str], compose: Compose) -> list[str]:
    """Writes the changes and recomposes; where that fails, every file is as it was. Returns a line for each."""
    from stages.core.atomic import write_text
    from stages.sweeps.adoption import write_change

    before = {change.file: change.file.read_text(encoding="utf-8") for change in changes}
    try:
        for change in changes:
            write_change(change)
        compose(overrides)
    except ConfigError:
        for file, text in before.items():
            write_text(file, text)
        raise
    lines = [f"{_shown(one.file)}: {one.key}: {_value(one.before)} -> {_value(one.after)}" for one in changes]
    return lines or ["conf/ has these settings already"]


def list_sweeps(reports: Path) -> list[str]:
    """A line for each sweep: its verdict where there is one."""
    lines = []
    for path in sorted(reports.glob("*/*.md")):
        text = path.read_text(encoding="utf-8")
        best = next((line for line in text.splitlines() if line.startswith("Best by")), "nothing to choose by yet")
        winner = next((line.split("`")[-2] for line in text.splitlines() if line.startswith("| 1 |")), "JOB")
        lines += [
            f"{path.parent.name}/{path.stem}/{winner}",
            f"    {best.replace('**', '').split(' Not to be told')[0]}",
        ]
    return lines


def will_run() -> str:
    """What `dvc repro` would run now, in words."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"dvc repro: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}"
    lines = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage '")]
    stages = [name for name in lines if name != "params"]  # the check of params.yaml alone builds nothing
    return f"dvc repro will run {', '.join(stages)}; then what depends on it" if stages else "dvc repro: nothing to run"


def _parts(job: str) -> tuple[str, str, str]:
    stage, _, rest = job.partition("/")
    sweep, _, name = rest.partition("/")
    if not name:
        raise ConfigError(f"{job}: expected STAGE/SWEEP/JOB; `groundtune adopt` lists them")
    return stage, sweep, name


def _check_choices(job: AdoptableJob, params: dict[str, Any]) -> None:
    """Raises ConfigError where the sweep ran for another domain, task or model than params.yaml is composed for."""
    for item in job.left_out:
        group, _, choice = item.partition("=")
        if group in GROUPS and params[group]["name"] != choice:
            way_out = f"run `python -m stages.compose {item}` first"
            raise ConfigError(f"the sweep ran with {item}, params.yaml has {params[group]['name']}: {way_out}")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _shown(file: Path) -> Path:
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def _value(value: Any) -> str:
    return "unset" if value is None else str(value)
