"""A job's settings into conf/: each into the file that decides about it, and nothing else of the file changes.

    train_rag_lora.lora.r=16    ->  conf/domain/<domain>.yaml, where that sets train_rag_lora.lora.r; else
                                    conf/model/<model>.yaml, where that does; else conf/train_rag_lora/default.yaml
    train_regression.loss.weight=5, of a sweep over @hybrid  ->  the same below train_regression.variants.hybrid

Reads reports/sweeps/<stage>/<sweep>.csv, so that a sweep can be adopted where it was reviewed, not only where it ran.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.core.errors import ConfigError, DataError
from stages.core.stage import CONF
from stages.sweeps.job_file import FINISHED
from stages.sweeps.results import is_seed

COLUMN = "variant"


@dataclass(frozen=True)
class Setting:
    """key: full, such as train_rag_lora.lora.r."""

    key: str
    value: Any


@dataclass(frozen=True)
class Change:
    """One setting in one file. before: None where the file did not have it."""

    file: Path
    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class AdoptableJob:
    """A row of a sweep's table."""

    name: str
    stage: str
    variant: str
    row: Mapping[str, str]

    @property
    def settings(self) -> list[Setting]:
        """What it set, but for seeds. Raises ConfigError where that is a choice of a whole file."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        keys = [key for key in self.row if key.lstrip("+").startswith(f"{self.stage}.") and self.row[key]]
        parsed = OverridesParser.create().parse_overrides([f"{key}={self.row[key]}" for key in keys])
        return [Setting(one.key_or_group, one.value()) for one in parsed if not is_seed(one.key_or_group)]

    @property
    def left_out(self) -> list[str]:
        """Its overrides that are none of the stage's settings: seeds, and choices of another domain or model."""
        keys = list(self.row)[1 : list(self.row).index("status")]
        adopted = {one.key for one in self.settings}
        return [f"{key}={self.row[key]}" for key in keys if key.lstrip("+") not in adopted and self.row[key]]


def read_table(reports: Path, stage: str, sweep: str) -> list[dict[str, str]]:
    """The rows of a sweep's CSV. Raises DataError naming the sweeps that there are."""
    path = reports / stage / f"{sweep}.csv"
    if not path.exists():
        there = ", ".join(sorted(f"{p.parent.name}/{p.stem}" for p in reports.glob("*/*.csv"))) or "none"
        raise DataError(f"no sweep {stage}/{sweep}; there is {there}")
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def find_job(reports: Path, stage: str, sweep: str, name: str) -> AdoptableJob:
    """Raises DataError where it is not there, or has not finished."""
    rows = {row["job"]: row for row in read_table(reports, stage, sweep)}
    if name not in rows:
        raise DataError(f"{stage}/{sweep} has no job {name}; there is {', '.join(rows)}")
    row = rows[name]
    if row["status"] != FINISHED:
        reason = f" ({row['reason']})" if row.get("reason") else ""
        raise DataError(f"{stage}/{sweep}/{name} is {row['status']}{reason}: only a finished job can be adopted")
    return AdoptableJob(name, stage, row.get(COLUMN, ""), row)


def files_in_force(choices: Mapping[str, str], conf: Path = CONF) -> list[Path]:
    """The files that conf/config.yaml is made of with these choices of its groups; what comes later wins."""
    defaults = _load(conf / "config.yaml")["defaults"]
    groups = [item for item in defaults if isinstance(item, Mapping)]
    named = [(group, choices.get(group, name)) for item in groups for group, name in item.items()]
    return [conf / group / f"{name}.yaml" for group, name in named if (conf / group / f"{name}.yaml").exists()]


def changes_of(job: AdoptableJob, files: Sequence[Path], conf: Path = CONF) -> list[Change]:
    """Where each of the job's settings goes; what already stands there is left out."""
    found = []
    for setting in job.settings:
        key = _in_variant(job, setting.key)
        file = _deciding(files, job, setting.key, conf)
        before = _at(_load(file), _place(file, key, conf))
        if before != setting.value:
            found.append(Change(file, key, before, setting.value))
    return found


def write_change(change: Change, conf: Path = CONF) -> None:
    """Sets one value; comments and the layout of the rest stay."""
    document = _load(change.file)
    *parents, last = _place(change.file, change.key, conf)
    section = document
    for part in parents:
        if not isinstance(section.get(part), dict):
            section[part] = _flow_mapping()
        section = section[part]
    section[last] = _flow_sequence(change.after) if isinstance(change.after, list) else change.after
    text = io.StringIO()
    _yaml().dump(document, text)
    write_text(change.file, text.getvalue())


def _deciding(files: Sequence[Path], job: AdoptableJob, key: str, conf: Path) -> Path:
    """The last file that sets the key (of a variant: that sets the variant); else the stage's own."""
    wanted = f"{job.stage}.variants.{job.variant}" if job.variant else key
    setting = [file for file in files if _has(_load(file), _place(file, wanted, conf))]
    return setting[-1] if setting else conf / job.stage / "default.yaml"


def _in_variant(job: AdoptableJob, key: str) -> str:
    return f"{job.stage}.variants.{job.variant}.{key.removeprefix(job.stage + '.')}" if job.variant else key


def _place(file: Path, key: str, conf: Path) -> list[str]:
    """The key's parts inside the file: a file of group g without `@package _global_` begins below g."""
    parts = key.split(".")
    if "@package _global_" in file.read_text(encoding="utf-8").partition("\n")[0]:
        return parts
    group = file.relative_to(conf).parent.parts
    return parts[len(group) :] if tuple(parts[: len(group)]) == group else ["", *parts]  # "": nowhere in it


def _has(section: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(section, Mapping) or part not in section:
            return False
        section = section[part]
    return True


def _at(section: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        section = section.get(part) if isinstance(section, Mapping) else None
    return section


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _load(file: Path) -> Any:
    """Raises ConfigError where the file is not YAML, or no mapping."""
    from ruamel.yaml.error import YAMLError

    try:
        found = _yaml().load(file.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ConfigError(f"{file}: broken YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected a mapping")
    return found


def _flow_mapping() -> Any:
    from ruamel.yaml.comments import CommentedMap

    mapping = CommentedMap()
    mapping.fa.set_flow_style()
    return mapping


def _flow_sequence(values: list[Any]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence
