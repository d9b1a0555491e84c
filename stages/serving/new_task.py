"""Pairs of texts with a number -> conf/regression/NAME.yaml; and what to set for a database.

task_yaml("likeness", "/data/pairs", pairs, Path("/data/pairs"))
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from stages.serving.folder_survey import Records
from stages.serving.new_domain import quoted

PARTS = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
MAX_DECIMALS = 2


def task_yaml(name: str, raw_dir: str, pairs: Sequence[Records]) -> str:
    """A regression task on the files that have the fields of the first one; ends in a line end."""
    fields = pairs[0].found.fields
    alike = [records for records in pairs if records.found.fields == fields]
    values = [value for records in alike for value in records.found.values]
    decimals = min(MAX_DECIMALS, max(_num_decimals(value) for value in values))
    low, high = _range(values, decimals)
    files, split = _files([records.path for records in alike])
    field = re.sub(r"\W+", "_", fields["value"]).strip("_") or "value"
    system = f"How do two texts compare? Give their {field}, from {low} to {high}."
    mapped = ", ".join(f"{ours}: {quoted(theirs)}" for ours, theirs in fields.items())
    return f"""# @package _global_
# Written by `groundtune new {name} --from ...`: {len(values)} pairs of texts with a number.
#   python -m stages.compose regression={name}
#   dvc repro evaluate_regression
regression:
  name: {name}
  raw: {quoted(raw_dir)}
  generators: {{}}
  json_field: {quoted(field)}
  low: {low}          # the smallest value found: put the end of the scale here
  high: {high}         # the largest
  decimals: {decimals}
  tolerance: {round((high - low) / 10, 6)}   # a prediction at most so far off counts as right: a tenth of the range
  prompt:             # in words that say what the number means
    system: {quoted(system)}
    system_with_neighbours: {quoted(system + " Known pairs:" + chr(10) + "{neighbours}")}
    neighbour: {quoted("A: {a}" + chr(10) + "B: {b}" + chr(10) + "{value}")}
    pair: {quoted("A: {a}" + chr(10) + "B: {b}")}
  source: files
  files:
    files: {{{files}}}
    fields: {{{mapped}}}
  split: {split}
  split_by: component
"""


def _num_decimals(value: float) -> int:
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])


def _range(values: Sequence[float], decimals: int) -> tuple[float, float]:
    scale = 10**decimals
    low, high = math.floor(min(values) * scale) / scale, math.ceil(max(values) * scale) / scale
    return round(low, decimals), round(high, decimals)


def _files(paths: Sequence[str]) -> tuple[str, str]:
    """The files by part where their names say which, else all together; and the split that goes with it."""
    stems = {path: PurePosixPath(path).stem.casefold() for path in paths}
    parts = {
        part: path for part, words in PARTS.items() for path in paths if any(word in stems[path] for word in words)
    }
    if len(paths) == len(set(parts.values())) == len(PARTS):
        return ", ".join(f"{part}: {quoted(path)}" for part, path in parts.items()), "official"
    names = ["all", *(f"all{number}" for number in range(2, len(paths) + 1))]
    return ", ".join(f"{name}: {quoted(path)}" for name, path in zip(names, paths, strict=True)), "seeded"


def database_hints(name: str, databases: Sequence[tuple[str, str]]) -> list[str]:
    """What to set for a database, for people."""
    lines = []
    for path, kind in databases:
        shipped = "contracts_postgresql" if kind else "contracts"
        what = f"the URL of a {kind} database" if kind else "a SQLite database, sqlite:///<its path>"
        lines.append(f"{path}: {what}; copy conf/regression/{shipped}.yaml to {name}.yaml, and set its name, sql.url")
        lines.append("  (no password: PGPASSWORD holds that), and the tables or sql.query, a SELECT of a, b and value")
    return [*lines, f"  then: python -m stages.compose regression={name}"] if lines else []
