"""Stages whose entry in dvc.lock differs, by what differs; and entries that the working tree has left behind.

The lock says what each stage was run on: the hash of every dependency, the values of its parameters, and the hash of
every output. So "code", "data" and "params" are known apart without running or fetching anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.config import flat

CODE = ("stages/", "conf")
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class StageChange:
    """One stage; `state` is changed, new or gone. Each list holds what differs; outputs too."""

    stage: str
    state: str
    code: list[str]
    params: list[str]
    data: list[str]
    outputs: list[str]


def stages_diff(before: Entry, after: Entry) -> list[StageChange]:
    """From two dvc.lock as mappings, in the order of the later one; without `params`, which only checks."""
    old, new = before.get("stages") or {}, after.get("stages") or {}
    names = [name for name in dict.fromkeys([*new, *old]) if name != "params" and old.get(name) != new.get(name)]
    return [_stage_change(name, old.get(name), new.get(name)) for name in names]


def _stage_change(name: str, old: Entry | None, new: Entry | None) -> StageChange:
    if old is None or new is None:
        return StageChange(name, "new" if old is None else "gone", [], [], [], [])
    deps = _differing(_hashes(old, "deps"), _hashes(new, "deps"))
    code = [path for path in deps if path.startswith(CODE)]
    command = ["its command"] if old.get("cmd") != new.get("cmd") else []
    params = _differing(_params(old), _params(new))
    data = [path for path in deps if path not in code]
    return StageChange(
        name, "changed", code + command, params, data, _differing(_hashes(old, "outs"), _hashes(new, "outs"))
    )


def stale_stages(lock: Entry, pipeline: Entry, params: Mapping[str, Any], root: Path) -> dict[str, list[str]]:
    """Stages that were run on other code or parameters than stand here, and which: their reports are not of this tree.

    pipeline: dvc.yaml. Only files of code are hashed; data may not be here at all. The stage `params` stands for the
    whole params.yaml and for conf/, and reruns for nothing.
    """
    current = flat(params)
    stale = {}
    for name, entry in (lock.get("stages") or {}).items():
        if name == "params" or not _is_active(name, pipeline, current):
            continue
        left_behind = [*_stale_code(entry, root), *_stale_params(entry, current)]
        if left_behind:
            stale[name] = left_behind
    return stale


def _is_active(name: str, pipeline: Entry, current: Mapping[str, Any]) -> bool:
    """Whether dvc.yaml has the stage for these parameters; the lock keeps variants of other domains as well."""
    stage, _, variant = name.partition("@")
    entry = (pipeline.get("stages") or {}).get(stage)
    if entry is None or "foreach" not in entry:
        return entry is not None
    prefix = f"{str(entry['foreach']).strip('${}')}.{variant}"
    return any(key == prefix or key.startswith(f"{prefix}.") for key in current)


def _stale_code(entry: Entry, root: Path) -> Iterator[str]:
    for path, digest in _hashes(entry, "deps").items():
        file = root / path
        if path.startswith("stages/") and not (
            file.is_file() and hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == digest
        ):
            yield path


def _stale_params(entry: Entry, current: Mapping[str, Any]) -> Iterator[str]:
    locked = flat(_params(entry))
    tops = tuple(f"{key}." for key in _params(entry))
    now = {key: value for key, value in current.items() if key.startswith(tops) or f"{key}." in tops}
    yield from (key for key in dict.fromkeys([*now, *locked]) if now.get(key) != locked.get(key))


def _hashes(entry: Entry, kind: str) -> dict[str, str]:
    return {item["path"]: str(item.get("md5", "")) for item in entry.get(kind) or []}


def _params(entry: Entry) -> dict[str, Any]:
    found = (entry.get("params") or {}).get("params.yaml")
    return dict(found or {})


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    old, new = flat(old), flat(new)
    return [key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key)]
