"""Registering a version of an export: what has to be true of it, what it is called, what its tag says.

A version is the commit and dvc.lock of now. It is refused where those do not say what the export is: something is not
committed, the export is missing or is not what its manifest or dvc.lock say, what it was made from has changed since,
its files are not in DVC's cache, or it is an earlier version, byte for byte.

The changes against the version before stand in the tag's message: `git show demo-rag@v1.1.0`, and the page that a code
host shows for the tag, are its changelog. A file would change the very commit that it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.core.dvc_lock import Lock, LockedFile, LockedStage, is_within
from stages.core.errors import ConfigError, DataError
from stages.core.git import git, uncommitted
from stages.core.workspace import Workspace
from stages.export.manifest import verified_export
from stages.serving.dvc_cache import cached, open_repository
from stages.serving.release_changes import change_lines, figure_changes, figures, param_changes, params_of
from stages.serving.releases import EXPORTS, Release, exports_of, lock_at, releases, settings_of

FIRST = (1, 0, 0)
BUMPS = ("major", "minor", "patch")
MAX_NAMED = 5


@dataclass(frozen=True)
class Candidate:
    """An export as the commit of now has it."""

    root: Path
    revision: str
    name: str
    lock: Lock
    stage: LockedStage
    export: LockedFile


def register(export: str, workspace: Workspace, domain: str, bump: str = "minor", message: str = "") -> Release:
    """Registers the next version of an export; v1.0.0 is the first. export: name, variant of `domain`, or folder.

    Raises DataError or ConfigError, saying what has to be done first; then nothing was registered.
    """
    candidate = _candidate(export, workspace, domain)
    _check(candidate)
    earlier = releases(candidate.root, candidate.name)
    for release in earlier:
        if release.exported[1].md5 == candidate.export.md5:
            raise DataError(f"{candidate.export.path} is {release.spec} already, byte for byte; nothing was registered")
    version = next_version([release.version for release in earlier], bump)
    _tag(candidate, version, tag_message(candidate, version, earlier[0] if earlier else None, message))
    return releases(candidate.root, candidate.name)[0]


def next_version(earlier: list[str], bump: str) -> str:
    """v1.0.0, or the highest of the earlier ones (v1.2.3 each) with its major, minor or patch number raised."""
    if bump not in BUMPS:
        raise ConfigError(f"--bump: {bump!r} is not one of {', '.join(BUMPS)}")
    if not earlier:
        return "v" + ".".join(map(str, FIRST))
    from gto.versions import SemVer

    highest = max(SemVer(version) for version in earlier)
    return str(getattr(highest, f"bump_{bump}")().version)


def _candidate(export: str, workspace: Workspace, domain: str) -> Candidate:
    root = workspace.inputs
    if changed := uncommitted(root):
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise DataError(
            f"not committed: {', '.join(changed[:MAX_NAMED])}{more}; a version is a commit, so commit first"
        )
    revision = git(root, "rev-parse", "HEAD").strip()
    lock = lock_at(root, revision)
    exports = exports_of(lock)
    path = export.rstrip("/").removeprefix("./")
    name = path.removeprefix(f"{EXPORTS}/").replace("/", "-") if path.startswith(EXPORTS) else path
    name = name if name in exports else f"{domain}-{name}"
    if name not in exports:
        there = f"there is {', '.join(exports)}" if exports else "there is none; run `dvc repro export_model@VARIANT`"
        raise ConfigError(f"{export}: no such export in the committed dvc.lock; {there}")
    return Candidate(root, revision, name, lock, *exports[name])


def _check(candidate: Candidate) -> None:
    """Raises DataError where the export is not what the committed dvc.lock says, or could not be had again."""
    verified_export(candidate.root / candidate.export.path)
    with open_repository(candidate.root) as repository:
        cached(repository.cache.local, candidate.export)
        target = f"{candidate.root / 'dvc.yaml'}:{candidate.stage.name}"  # from wherever the command was started
        status = repository.status(targets=[target], with_deps=True)
    stale = [
        f"{name.rpartition(':')[2]} ({reason})"
        for name, changes in status.items()
        if (reason := _reason(candidate, changes))
    ]
    if stale:
        raise DataError(
            f"{candidate.export.path} is not what the pipeline of now makes: {'; '.join(stale)}. Run "
            f"`dvc repro {candidate.stage.name}`, or compose the settings it was made with, and commit"
        )


def _reason(candidate: Candidate, changes: list[object]) -> str:
    """Why a stage would run again; "" where it is only that data are not here, which a host may have no room for."""
    found = []
    for change in changes:
        for what, paths in change.items() if isinstance(change, dict) else [(str(change), {"": ""})]:
            found += [
                f"{what} {path}".strip() for path, state in paths.items() if not _is_absent(candidate, path, state)
            ]
    return ", ".join(found[:MAX_NAMED])


def _is_absent(candidate: Candidate, path: str, state: str) -> bool:
    """Whether that is not here, or a folder of outputs of which one is not."""
    within = (out.path for stage in candidate.lock.values() for out in stage.outs if is_within(out.path, path))
    return state == "deleted" or any(not (candidate.root / out).exists() for out in within)


def tag_message(candidate: Candidate, version: str, before: Release | None, message: str) -> str:
    """The first line names it; then the author's words, and what changed against the version before."""
    root, card = candidate.root, settings_of(candidate.stage).get("card") or {}
    now = figures(root, candidate.revision, card)
    summary, _, details = message.strip().partition("\n")
    lines = [
        f"{candidate.name} {version}{f': {summary}' if summary else ''}",
        *(["", details.strip()] if details else []),
    ]
    if before is None:
        sections = {"Metrics, with 95 % intervals": [f"{label}: {value}" for label, value in now.items()]}
    else:
        old_stage = before.exported[0]
        old = figures(root, before.revision, before.settings.get("card") or {})
        sections = {
            f"Parameters, against {before.version}": param_changes(
                params_of(before.lock, old_stage), params_of(candidate.lock, candidate.stage)
            ),
            f"Metrics, against {before.version}, with 95 % intervals": figure_changes(old, now),
        }
    lines += change_lines(sections)
    if before is not None and not any(sections.values()):
        lines += ["", f"No parameter and no figure changed against {before.version}; code or data did."]
    return "\n".join([*lines, "", f"{candidate.export.path} {candidate.export.md5}", ""])


def _tag(candidate: Candidate, version: str, message: str) -> None:
    from gto.exceptions import GTOException
    from gto.registry import GitRegistry
    from scmrepo.exceptions import SCMError

    try:
        with GitRegistry.from_url(str(candidate.root)) as registry:
            registry.register(candidate.name, candidate.revision, version=version, message=message, simple=True)
    except (GTOException, SCMError) as error:
        raise DataError(f"{candidate.name} {version}: {error}") from error
