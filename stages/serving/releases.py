"""Registered versions of exported models, and the files of each, long after the workspace has moved on.

A version is an annotated Git tag as GTO spells it, `demo-rag@v1.1.0`, on a commit whose dvc.lock names the export:

    find("tuned@v1.0.0", workspace, "demo")         # Release(name="demo-rag", version="v1.0.0", ...)
    resolve("demo-rag@latest", workspace)           # .cache/releases/demo-rag/v1.1.0, read-only, verified

The files come from DVC's cache by the hash in that lock, linked as `cache.type` says: no model is copied twice, and
the workspace is not touched. NAME is the registered name, its variant alone (`rag` for demo-rag), `tuned`, or a style
adapter of the domain, which mean the version that was exported from that adapter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.core.dvc_lock import LOCK, Lock, LockedFile, LockedStage, parse_lock
from stages.core.errors import ConfigError, DataError
from stages.core.git import file_at
from stages.core.schema import Model, Prompt
from stages.core.workspace import Workspace
from stages.export.manifest import load_verified
from stages.generation.loading import ADAPTER_NOTE
from stages.serving.dvc_cache import link_from_cache, open_cache

EXPORTS = "models/export"
ADAPTER_FOLDER = "adapter"  # of an export
STAGE = "export_model"
LATEST = "latest"
SEPARATOR = "@"


@dataclass(frozen=True)
class Release:
    """A registered version. root: the repository; name: <domain>-<variant>; revision: commit; message: the tag's."""

    root: Path
    name: str
    version: str
    revision: str
    created: datetime
    message: str

    @property
    def spec(self) -> str:
        """What it is called on a command line, and its tag."""
        return f"{self.name}{SEPARATOR}{self.version}"

    @property
    def summary(self) -> str:
        """The author's words: of the message's first line, `demo-rag v1.1.0: More pairs`, what follows the colon."""
        return self.message.partition("\n")[0].partition(": ")[2]

    @cached_property
    def lock(self) -> dict[str, LockedStage]:
        """dvc.lock as it was. Raises DataError where the commit has none."""
        return lock_at(self.root, self.revision)

    @cached_property
    def exported(self) -> tuple[LockedStage, LockedFile]:
        """The stage that exported it, and the export. Raises DataError where the lock of its commit has no such one."""
        found = exports_of(self.lock).get(self.name)
        if found is None:
            raise DataError(f"{self.spec}: {LOCK} of its commit {self.revision[:7]} has no export {self.name}")
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The section export_model as it was, the variant's settings over the section's."""
        return settings_of(self.exported[0])

    @property
    def model(self) -> Model:
        """How its base was loaded."""
        return Model(**self.settings["model"])

    def prompt(self, folder: Path) -> Prompt:
        """The prompt that it was trained with: its adapter's own, where that brings one. folder: its files."""
        note = folder / ADAPTER_FOLDER / ADAPTER_NOTE
        own = json.loads(note.read_text(encoding="utf-8")).get("prompt") if note.is_file() else None
        return Prompt(**(own or self.settings["prompt"]))

    def has_own_prompt(self, folder: Path) -> bool:
        """Whether that is another one than its domain's, for documents, was then."""
        return self.prompt(folder) != Prompt(**self.settings["prompt"])


def is_release(spec: str) -> bool:
    """Whether a model's name means a version, NAME@VERSION."""
    return SEPARATOR in spec


def lock_at(root: Path, revision: str) -> dict[str, LockedStage]:
    """dvc.lock at a revision. Raises DataError where it is not committed there."""
    text = file_at(root, revision, LOCK)
    if text is None:
        raise DataError(f"{LOCK} is not committed at {revision[:7]}; run `dvc repro`, then commit it")
    return parse_lock(text, f"{LOCK} at {revision[:7]}")


def exports_of(lock: Lock) -> dict[str, tuple[LockedStage, LockedFile]]:
    """Name -> stage and folder of every export that a lock names; models/export/demo/rag is demo-rag."""
    found = [(stage, out) for stage in lock.values() for out in stage.outs if out.path.startswith(f"{EXPORTS}/")]
    return {out.path.removeprefix(f"{EXPORTS}/").replace("/", "-"): (stage, out) for stage, out in found}


def settings_of(stage: LockedStage) -> dict[str, Any]:
    """What a locked export was made with."""
    from stages.core.stage import with_variant

    section = {key.removeprefix(f"{STAGE}."): value for key, value in stage.params.items()}
    variant = stage.name.partition("@")[2]
    variants = {key.removeprefix("variants."): section.pop(key) for key in list(section) if key.startswith("variants.")}
    return with_variant({**section, "variants": variants}, variant, STAGE)


def releases(root: Path, name: str = "") -> list[Release]:
    """All versions, or those of one name: by name, the newest first; without those that GTO has deregistered."""
    from gto.exceptions import GTOException
    from gto.registry import GitRegistry
    from scmrepo.exceptions import SCMError

    found = []
    try:
        with GitRegistry.from_url(str(root)) as registry:
            for artifact in registry.get_artifacts().values():
                for version in artifact.get_versions() if name in ("", artifact.artifact) else []:
                    event = version.registrations[-1]
                    found.append(
                        Release(
                            root,
                            artifact.artifact,
                            version.version,
                            version.commit_hexsha,
                            version.created_at,
                            event.message.strip(),
                        )
                    )
    except (GTOException, SCMError) as error:
        raise DataError(f"{root}: {error}") from error
    return sorted(found, key=lambda release: release.name)  # stable: versions stay in GTO's order


def find(spec: str, workspace: Workspace, domain: str = "") -> Release:
    """The version that NAME@VERSION means; VERSION may be `latest`. domain: whose variants and adapters NAME may mean.

    Raises ConfigError where there is no such version, naming those there are, or where NAME means several.
    """
    name, _, version = spec.partition(SEPARATOR)
    everything = releases(workspace.inputs)
    named = _named(name, everything, domain)
    if len(names := sorted({release.name for release in named})) > 1:
        raise ConfigError(f"{spec}: {name} was exported as {' and '.join(names)}; name one of them")
    for release in named:
        if version in (release.version, LATEST):
            return release
    there = ", ".join(release.spec for release in named or everything)
    none = "no version is registered yet (`groundtune release EXPORT` registers one)"
    raise ConfigError(f"{spec}: no such version; {f'there is {there}' if there else none}")


def _named(name: str, everything: Sequence[Release], domain: str) -> list[Release]:
    """The releases that a name means: so registered, else the domain's variant, else exported from that adapter."""
    for wanted in (name, f"{domain}-{name}"):
        if named := [release for release in everything if release.name == wanted]:
            return named
    adapter = f"models/{domain}/{'rag_lora' if name == 'tuned' else f'styles/{name}'}"
    of_domain = [release for release in everything if release.name.startswith(f"{domain}-")]
    return [release for release in of_domain if release.settings.get("adapter") == adapter]


def resolve(spec: str, workspace: Workspace, domain: str = "") -> Path:
    """The verified, read-only folder with the files of NAME@VERSION. Raises as `find` and `files_of` do."""
    return files_of(find(spec, workspace, domain), workspace)


def files_of(release: Release, workspace: Workspace) -> Path:
    """The verified, read-only folder with a version's files; made from DVC's cache the first time.

    Raises DataError where the cache has not got them, naming the command that fetches them, or where a file is not the
    one of the manifest.
    """
    from filelock import FileLock

    folder = workspace.cache("releases", release.name) / release.version
    with FileLock(folder.with_name(f"{release.version}.lock")):
        if not folder.is_dir():
            with open_cache(release.root) as cache:
                link_from_cache(cache, release.exported[1], folder)
    try:
        return load_verified(folder, workspace)
    except DataError as error:
        raise DataError(f"{error}\n{release.spec}: delete {folder}, and it is made again from DVC's cache") from error
