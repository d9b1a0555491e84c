"""`groundtune explain`: a model or a report, and the tree of what it was made from."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.workspace import Workspace

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from stages.serving.lineage import Lineage, Source, Step

Output = Annotated[
    str, typer.Argument(metavar="PATH", help="A model, report or other output, such as models/demo/rag_lora.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
SHORT = 12
UNWRAPPED = 10_000
HIDDEN = ("files",)  # of manifests: verify is for them


def explain_command(workspace: Workspace) -> Callable[..., None]:
    """The command."""

    def explain(path: Output, as_json: AsJson = False) -> None:
        """Print from what a model or a report was made: stages, data, parameters, revision, by hash.

        \b
        groundtune explain models/demo/rag_lora
        groundtune explain reports/demo/report.md --json
        """
        from stages.serving.lineage import explain as look_up

        lineage = look_up(path, workspace)
        if as_json:
            typer.echo(json.dumps(asdict(lineage), ensure_ascii=False, indent=2, default=str))
            return
        from rich.console import Console

        width = None if sys.stdout.isatty() else UNWRAPPED  # in a file or a pipe, lines stay lines
        Console(highlight=False, width=width).print(tree(lineage))

    return explain


def tree(lineage: Lineage) -> Tree:
    """For a terminal; what files and commits say stays text."""
    from rich.tree import Tree

    top = Tree(_text((lineage.path, "bold"), (f"  md5 {lineage.md5[:SHORT]}  ", ""), _state(lineage.state)))
    for difference in lineage.differences:
        top.add(_text((difference, "red")))
    top.add(_text(("commit  ", "dim"), (_commit(lineage), "")))
    for key, value in lineage.facts.items():
        top.add(_text((f"{key}  ", "dim"), (value[:SHORT], "")))
    for name, note in lineage.notes.items():
        _mapping(top.add(_text((name, ""), ("  says", "dim"))), note)
    first = lineage.steps[0]
    section = lineage.settings.get(first.stage)
    _mapping(top.add(_text((f"parameters of {first.stage}", ""))), section if section else lineage.settings)
    _grow(top, first, {step.stage: step for step in lineage.steps}, set())
    return top


def _grow(branch: Tree, step: Step, steps: Mapping[str, Step], shown: set[str]) -> None:
    """The stage, and below it what it read; a stage is unfolded where it is met first."""
    from stages.serving.release_changes import WHOLE

    hashes = f"  params {step.params[:SHORT]}"
    hashes += f", code {step.code[:SHORT]} ({step.num_code_files} files)" if step.num_code_files else ""
    if step.stage in shown:
        branch.add(_text(("made by ", "dim"), (step.stage, "cyan"), (", see above", "dim")))
        return
    shown.add(step.stage)
    node = branch.add(
        _text(("made by ", "dim"), (step.stage, "bold cyan"), (hashes, "dim"), (f"  {_cost(step.cost)}", ""))
    )
    for source in step.sources:
        if source.made_by == (WHOLE,):  # says only that params.yaml was checked
            continue
        below = node.add(_source(source))
        for name in source.made_by:
            _grow(below, steps[name], steps, shown)


def _cost(cost: Mapping[str, Any]) -> str:
    """Where the stage ran, how its training was launched, and how long it took: as far as that was noted."""
    launch = cost.get("launch", {})
    parts = [
        str(cost.get("device", "")),
        f"launch {launch['kind']}, processes {launch['num_processes']}" if launch else "",
        f"{cost['wall_s']} s" if "wall_s" in cost else "",
    ]
    return ", ".join(filter(None, parts))


def _source(source: Source) -> Text:
    return _text((source.path, ""), (f"  md5 {source.md5[:SHORT]}  ", "dim"), _state(source.state))


def _mapping(branch: Tree, values: Mapping[str, Any]) -> None:
    """A line for each key; what is below it stands in that line."""
    from stages.core.config import flat

    for key, value in values.items():
        if key not in HIDDEN:
            inner = ", ".join(f"{k} {_value(v)}" for k, v in flat(value).items()) if isinstance(value, Mapping) else ""
            branch.add(_text((f"{key}  ", "dim"), (inner or _value(value), "")))


def _value(value: Any) -> str:
    """Hashes are shortened; --json has them whole."""
    if isinstance(value, str):
        return value[:SHORT] if re.fullmatch("[0-9a-f]{64}", value) else value
    return json.dumps(value, ensure_ascii=False, default=str)


def _commit(lineage: Lineage) -> str:
    commit = lineage.commit
    if commit is None:
        return "none: what dvc.lock says of it is not committed"
    return f"{commit.revision[:SHORT]}  {commit.date[:10]}  {commit.author}  {commit.subject}"


def _state(state: str) -> tuple[str, str]:
    from stages.serving.lineage import ABSENT, AS_LOCKED

    return state, {AS_LOCKED: "green", ABSENT: "yellow"}.get(state, "red")


def _text(*parts: tuple[str, str]) -> Text:
    from rich.text import Text

    from stages.serving.terminal import printable

    return Text.assemble(*((printable(text).replace("\n", "\\n"), style) for text, style in parts))
