"""From what a model or a report was made: the chain of stages before it, as dvc.lock, Git and the files themselves say.

    explain("models/demo/rag_lora", Workspace())

What an output holds in itself is what decides about its bytes: hashes of base, data and prompt, parameters, versions
of libraries (adapter.json, merge.json, the manifests). What varies from checkout to checkout is not written into
outputs, or two clones would make different bytes of the same work; it is looked up here instead: the revision in Git,
hashes of parameters and data in dvc.lock, the device in reports/<name>/cost/<stage>.json, where the stage left one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.core.dvc_lock import (
    LOCK,
    Lock,
    LockedFile,
    LockedStage,
    ancestry,
    entry_text,
    is_within,
    producer,
    read_lock,
    upstream,
)
from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint
from stages.core.git import Commit, commits_of, file_at
from stages.core.workspace import Workspace
from stages.serving.dvc_cache import differences, open_cache

AS_LOCKED, CHANGED, ABSENT, RERUN = "as in dvc.lock", "changed", "not here", "made again since"
NOTES = ("adapter.json", "merge.json", "manifest.json", "export.json")
SHARED_FACTS = ("splits_sha256", "template_hash")  # of metrics files: what later stages were held to
CODE = "stages/"


@dataclass(frozen=True)
class Source:
    """What a stage read. made_by: a stage, "" for what no stage made. state: of the workspace, one of the above."""

    path: str
    md5: str
    made_by: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class Step:
    """A stage of the chain. params, code: hash over all parameters, and over the files of code it was run with."""

    stage: str
    command: str
    params: str
    num_code_files: int
    code: str
    sources: list[Source]
    cost: dict[str, Any]


@dataclass(frozen=True)
class Lineage:
    """commit: the last that changed what dvc.lock says of its stage; None where that is not committed.

    notes: file name -> what the output says of itself. facts: hashes that metrics of the chain hold. steps: its own
    stage first. settings: the parameters of that stage.
    """

    path: str
    md5: str
    state: str
    differences: list[str]
    commit: Commit | None
    notes: dict[str, dict[str, Any]]
    facts: dict[str, str]
    settings: dict[str, Any]
    steps: list[Step]


def explain(path: str, workspace: Workspace) -> Lineage:
    """The lineage of an output of the pipeline, or of a file in one. Raises DataError where dvc.lock has no such."""
    root = workspace.inputs
    lock = read_lock(root)
    path = _relative(path, root)
    stage = producer(lock, path)
    if stage is None:
        raise DataError(f"{path}: no output of the pipeline; dvc.lock names {_outputs(lock)}")
    out = next(out for out in stage.outs if is_within(path, out.path))
    with open_cache(root) as cache:
        states = _States(cache, root)
        steps = [_step(lock, one, states, root) for one in ancestry(lock, stage)]
        different = states.differences(out)
    facts = dict(_facts(root, ancestry(lock, stage)))
    notes = {name: note for name in NOTES if (note := _note(root / out.path / name))}
    state = states.of(out)
    return Lineage(
        out.path, out.md5, state, different, last_change(root, stage.name), notes, facts, stage.params, steps
    )


def last_change(root: Path, stage: str) -> Commit | None:
    """The commit that made dvc.lock say of a stage what it says in the workspace; None where none did yet."""
    now = entry_text((root / LOCK).read_text(encoding="utf-8"), stage)
    last = None
    for commit in commits_of(root, LOCK):
        if entry_text(file_at(root, commit.revision, LOCK) or "", stage) != now:
            break
        last = commit
    return last


class _States:
    """Whether files of the workspace are those of the lock; each is looked at once."""

    def __init__(self, cache: Any, root: Path) -> None:
        self.cache, self.root = cache, root
        self._found: dict[LockedFile, list[str] | None] = {}

    def differences(self, entry: LockedFile) -> list[str]:
        if entry not in self._found:
            try:
                self._found[entry] = differences(self.cache, self.root, entry)
            except FileNotFoundError:
                self._found[entry] = None
        return self._found[entry] or []

    def of(self, entry: LockedFile) -> str:
        different = self.differences(entry)
        return CHANGED if different else ABSENT if self._found[entry] is None else AS_LOCKED


def _step(lock: Lock, stage: LockedStage, states: _States, root: Path) -> Step:
    code = {dep.path: dep.md5 for dep in stage.deps if dep.path.startswith(CODE)}
    sources = [_source(lock, stage, dep, states) for dep in stage.deps if not dep.path.startswith(CODE)]
    return Step(
        stage.name, stage.command, fingerprint(stage.params), len(code), fingerprint(code), sources, _cost(root, stage)
    )


def _source(lock: Lock, stage: LockedStage, dep: LockedFile, states: _States) -> Source:
    makers = [one for one in upstream(lock, stage) if any(_overlap(out.path, dep.path) for out in one.outs)]
    newer = [out for one in makers for out in one.outs if out.path == dep.path and out.md5 != dep.md5]
    return Source(dep.path, dep.md5, tuple(one.name for one in makers), RERUN if newer else states.of(dep))


def _overlap(one: str, other: str) -> bool:
    return is_within(one, other) or is_within(other, one)


def _cost(root: Path, stage: LockedStage) -> dict[str, Any]:
    """What the stage cost when it ran, and where; {} where that was not noted."""
    owners = {
        parent for out in stage.outs if out.path.startswith("reports/") for parent in PurePosixPath(out.path).parents
    }
    return next((note for owner in sorted(owners) if (note := _note(root / owner / "cost" / f"{stage.name}.json"))), {})


def _facts(root: Path, stages: list[LockedStage]) -> Iterator[tuple[str, str]]:
    for stage in reversed(stages):
        for out in stage.outs:
            metrics = _note(root / out.path) if out.path.endswith(".json") else {}
            yield from ((key, str(metrics[key])) for key in SHARED_FACTS if key in metrics)


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(note) if isinstance(note, Mapping) else {}


def _relative(path: str, root: Path) -> str:
    """POSIX path below the repository, from one that may be absolute or seen from the current folder."""
    given = Path(path)
    if not given.is_absolute() and not (root / given).exists() and given.exists():
        given = given.resolve()
    relative = given.relative_to(root) if given.is_relative_to(root) else given
    return PurePosixPath(relative.as_posix()).as_posix()


def _outputs(lock: Lock) -> str:
    return ", ".join(out.path for stage in lock.values() for out in stage.outs if out.path.startswith("models/"))
