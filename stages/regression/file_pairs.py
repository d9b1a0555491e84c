"""Pairs from files, with the user's own field names.

{files: {all: pairs.csv}, fields: {a: sentence1, b: sentence2, value: score, category: entailment}}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.core.errors import ConfigError, DataError
from stages.core.ledger import Ledger
from stages.core.schema import Source
from stages.core.workspace import Workspace
from stages.knowledge import raw_files
from stages.regression.pairs import Pair, plain, text_pair
from stages.regression.price_series import number_of
from stages.regression.task import PARTS, RegressionTask

NEEDED = ("a", "b", "value")
OPTIONAL = ("a_id", "b_id", "category", "rationale")


def read_pairs(task: RegressionTask, workspace: Workspace, ledger: Ledger) -> Iterator[Pair]:
    """The pairs of all files, each with its file's part where the split is official. Rejects broken_record."""
    source = Source(path="", kind="pairs", fields=task.files.fields)
    raw_files.check_fields(source, NEEDED, OPTIONAL, f"{task.name}.files")
    names = task.files.files
    for part in sorted(names, key=lambda part: (PARTS.index(part) if part in PARTS else len(PARTS), part)):
        for pair in _read_file(_path(task, workspace, names[part]), source, ledger):
            yield replace(pair, part=part if task.split == "official" else "")


def _path(task: RegressionTask, workspace: Workspace, name: str) -> Path:
    try:
        return workspace.read(Path(task.raw) / name)
    except DataError:
        raise DataError(f"{task.raw}/{name}: no such file; see raw and files.files of the task {task.name}") from None


def _read_file(path: Path, source: Source, ledger: Ledger) -> Iterator[Pair]:
    first = True
    for item in raw_files.iterate_items(path):
        ledger.read()
        if item.error:
            ledger.reject(item.origin, "broken_record", item.error)
            continue
        if first:
            _check_columns(path, set(item.values), source)
            first = False
        try:
            texts = {name: plain(raw_files.text_of(item.values, source, name)) for name in source.fields}
        except raw_files.WrongTypeError as error:
            ledger.reject(item.origin, "broken_record", str(error))
            continue
        yield text_pair(texts, number_of(texts["value"]), item.origin)


def _check_columns(path: Path, found: set[str], source: Source) -> None:
    """A misspelt field name would reject every record one by one; the first record tells."""
    for name in NEEDED:
        alternatives = [field.strip() for text in source.fields[name].split(" | ") for field in text.split(" + ")]
        if not found & {source.fields[name], *alternatives}:
            raise ConfigError(
                f"{path.name} has no field {source.fields[name]!r} (files.fields.{name}): {sorted(found)}"
            )
