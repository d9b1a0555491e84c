"""dvc.lock: what each stage was run with, and what came out, by hash. Read only; DVC writes it.

    lock = read_lock(root)                        # or parse_lock(text of another revision, "...")
    lock["train_rag_lora"].outs[0].md5            # "0f3c....dir"
    producer(lock, "models/demo/rag_lora").name   # "train_rag_lora"

Format: https://doc.dvc.org/user-guide/project-structure/dvcyaml-files#dvclock-file
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.core.errors import DataError

LOCK = "dvc.lock"
PARAMS = "params.yaml"


@dataclass(frozen=True)
class LockedFile:
    """A file or folder and its hash; md5 ends in .dir for a folder. size_bytes: 0 where it was not recorded."""

    path: str
    md5: str
    size_bytes: int = 0


@dataclass(frozen=True)
class LockedStage:
    """A stage as it last ran. params: dotted key of params.yaml -> value, as dvc.yaml names them."""

    name: str
    command: str
    params: dict[str, Any]
    deps: tuple[LockedFile, ...]
    outs: tuple[LockedFile, ...]


Lock = Mapping[str, LockedStage]


def read_lock(root: Path) -> dict[str, LockedStage]:
    """The stages of dvc.lock in the folder `root`; none where there is no such file yet."""
    path = root / LOCK
    return parse_lock(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else {}


def parse_lock(text: str, where: str) -> dict[str, LockedStage]:
    """The stages of a dvc.lock by name. Raises DataError naming `where` for a file that is none."""
    import yaml

    try:
        content = load_yaml(text) or {}
        return {name: _stage(name, entry) for name, entry in (content.get("stages") or {}).items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{where}: not a lock file of DVC ({type(error).__name__}: {error})") from error


def load_yaml(text: str | bytes) -> Any:
    """YAML as DVC writes it: 1e-05 is a number (as in YAML 1.2; PyYAML reads 1.1, where it is a text).

    Raises yaml.YAMLError.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C: a second less a lock
        pass

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return yaml.load(text, Loader=Loader)  # noqa: S506  # a safe one


def entry_text(text: str, name: str) -> str:
    """What stands in the text of a dvc.lock about a stage, "" for nothing. Parses no YAML: for many revisions."""
    found = re.search(rf"^  {re.escape(name)}:\n((?:    .*\n|\n)+)", text + "\n", re.MULTILINE)
    return found.group(1).rstrip() if found else ""


def _stage(name: str, entry: Mapping[str, Any]) -> LockedStage:
    command = entry["cmd"]
    return LockedStage(
        name,
        " && ".join(command) if isinstance(command, list) else str(command),
        dict((entry.get("params") or {}).get(PARAMS) or {}),
        _files(entry.get("deps")),
        _files(entry.get("outs")),
    )


def _files(entries: Any) -> tuple[LockedFile, ...]:
    return tuple(LockedFile(e["path"], e.get("md5", ""), e.get("size", 0)) for e in entries or [])


def producer(lock: Lock, path: str) -> LockedStage | None:
    """The stage that wrote `path`, or the folder it lies in; None where none did."""
    return next((stage for stage in lock.values() for out in stage.outs if is_within(path, out.path)), None)


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it (POSIX paths relative to the same root)."""
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def upstream(lock: Lock, stage: LockedStage) -> list[LockedStage]:
    """The stages whose outputs this one read, in the order of its dependencies."""
    found = {
        other.name: other
        for dep in stage.deps
        for other in lock.values()
        for out in other.outs
        if other.name != stage.name and (is_within(dep.path, out.path) or is_within(out.path, dep.path))
    }
    return list(found.values())


def ancestry(lock: Lock, stage: LockedStage) -> list[LockedStage]:
    """The stage and all that it was made from, each once, the stage first."""
    order: dict[str, LockedStage] = {}
    queue = [stage]
    while queue:
        one = queue.pop(0)
        if one.name not in order:
            order[one.name] = one
            queue += upstream(lock, one)
    return list(order.values())
