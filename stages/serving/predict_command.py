"""`groundtune predict`: a pair of texts, or a file of pairs, to numbers with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.core.errors import DataError
from stages.core.jsonl import Line, iterate_lines, write_jsonl
from stages.core.ledger import Ledger

if TYPE_CHECKING:
    from stages.serving.predicting import Asked, PairPredictor, Prediction

Text = Annotated[str, typer.Argument(help="The texts of the pair.", show_default=False)]
Task = Annotated[str, typer.Option(help="The task, by its name in conf/regression; else the configured one.")]
Recipe = Annotated[str, typer.Option(help="A recipe of train_regression; else the best one evaluated.")]
Decoding = Annotated[str, typer.Option(help="expected, greedy or head; else as is best.")]
WithNeighbours = Annotated[
    bool | None, typer.Option("--neighbours/--no-neighbours", help="Known pairs in the prompt; else as is best.")
]
File = Annotated[Path | None, typer.Option(help='JSON lines {"a", "b"[, "id"]} instead of two texts.')]
Out = Annotated[Path | None, typer.Option(help="Where the JSON lines for --file go; else standard output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object: value, interval, neighbours.")]

Sections = Callable[[str], Mapping[str, Any]]


def predict_command(section: Sections) -> Callable[..., None]:
    """The command. section: from a task's name ("": the configured one) to the section `predict`."""

    def predict(
        a: Text = "",
        b: Text = "",
        task: Task = "",
        recipe: Recipe = "",
        decoding: Decoding = "",
        neighbours: WithNeighbours = None,
        file: File = None,
        out: Out = None,
        as_json: AsJson = False,
    ) -> None:
        """Predict the number of a pair of texts, with an interval and the known pairs it was shown."""
        if bool(a and b) == (file is not None) or bool(a) != bool(b):
            raise typer.BadParameter("give two texts, or --file")
        if file is None and out is not None:
            raise typer.BadParameter("--out goes with --file; for two texts there is --json")
        if file is not None and as_json:
            raise typer.BadParameter("--json is for two texts; with --file the output is JSON lines in any case")
        changes = {"recipe": recipe or None, "decoding": decoding or None, "neighbours": neighbours}
        settings = {**section(task), **{key: value for key, value in changes.items() if value is not None}}
        if file is None:
            _predict_pair(settings, a, b, as_json)
        else:
            _predict_file(settings, file, out)

    return predict


def _predict_pair(settings: Mapping[str, Any], a: str, b: str, as_json: bool) -> None:
    from stages.serving.predicting import Asked

    predictor = load(settings)
    (prediction,) = predict_all(predictor, [Asked(a, b)])
    if as_json:
        typer.echo(json.dumps(prediction.to_row(), ensure_ascii=False, indent=2))
    else:
        _show(predictor, prediction)


def _predict_file(settings: Mapping[str, Any], path: Path, out: Path | None) -> None:
    ledger = Ledger(path.name)
    asked = read_asked(path, ledger)
    for rejection in ledger.rejections:
        typer.echo(f"rejected {rejection['origin']}: {rejection['reason']} {rejection['detail']}".rstrip(), err=True)
    ledger.check(len(asked))
    rows = [prediction.to_row() for prediction in predict_all(load(settings), asked)]
    if out is not None:
        write_jsonl(out, rows)
    else:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    counts = ledger.metrics()
    typer.echo(
        f"{counts['num_read']} read, {counts['num_kept']} predicted, {counts['num_rejected']} rejected", err=True
    )


def read_asked(path: Path, ledger: Ledger) -> list[Asked]:
    """The usable pairs of a file of JSON lines; the others go to the ledger. A pair without id gets `file:line`.

    Reasons: broken_record, not_text (a, b or id is none, or is missing), empty_text, pair_with_itself.
    """
    from stages.serving.predicting import Asked

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    asked = []
    for line in iterate_lines(path):
        ledger.read()
        if reason := _flaw_of_row(line):
            ledger.reject(line.origin, *reason)
            continue
        pair = Asked(line.value["a"], line.value["b"], str(line.value.get("id", line.origin)))
        if pair.flaw:
            ledger.reject(line.origin, pair.flaw)
        else:
            asked.append(pair)
    return asked


def _flaw_of_row(line: Line) -> tuple[str, str] | None:
    if line.error:
        return "broken_record", line.error
    for key in ("a", "b"):
        if not isinstance(line.value.get(key), str):
            return "not_text", f"{key} is {line.value[key]!r:.40}" if key in line.value else f"{key} is missing"
    identifier = line.value.get("id", "")
    return None if isinstance(identifier, str | int) else ("not_text", f"id is {identifier!r:.40}")


def load(settings: Mapping[str, Any]) -> PairPredictor:
    """The predictor of these settings."""
    from stages.core.config import parse_section
    from stages.core.workspace import Workspace
    from stages.serving.predicting import Config, PairPredictor

    return PairPredictor(parse_section(Config, settings, "predict"), Workspace())


def predict_all(predictor: PairPredictor, asked: list[Asked]) -> list[Prediction]:
    """Predictions, with a sign of life while models are loaded."""
    from rich.console import Console

    with Console(stderr=True).status("loading models"):
        return predictor.predict(asked)


def _show(predictor: PairPredictor, prediction: Prediction) -> None:
    from stages.serving.terminal import printable

    task = predictor.config.task
    value, low, high = (f"{number:.{task.decimals}f}" for number in (prediction.value, prediction.low, prediction.high))
    unit = f" {task.unit}" if task.unit else ""
    typer.echo(f"{task.json_field} {value}{unit}, {prediction.level:.0%} interval {low} to {high}")
    typer.echo(f"by {prediction.system}, seed {predictor.system.seed}, split {predictor.split}")
    for number, near in enumerate(prediction.neighbours, start=1):
        typer.echo(f"[{number}] {near.value:.{task.decimals}f}, distance {near.distance:.3f}, {printable(near.id)}")
        typer.echo(printable(f"    {near.a}\n    {near.b}"))
    if prediction.num_shortened:
        typer.echo(f"note: {prediction.num_shortened} texts did not fit into the prompt and were shortened", err=True)
