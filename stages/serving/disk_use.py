"""What may be deleted from a checkout without losing an input or a result, with sizes; and its deletion.

    objects   in DVC's cache, used by no branch, tag, experiment, nor the workspace: `dvc gc --dry` says which, and of
              those, the ones that the workspace is linked to stay (outputs of a domain that is not configured now)
    scratch   .cache/: checkpoints of trainings that were interrupted, embeddings, stores; all of it is made again
    runs      runs/: what trials and sweeps have written; their tables in reports/sweeps stay

Remote branches do not count as using an object: what they use is in the remote.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import ConfigError, DataError

KINDS = ("objects", "scratch", "runs")
REMOVING = "Removing "


@dataclass(frozen=True)
class Freeable:
    """Something to delete. Files with another hard link elsewhere free nothing, and count as nothing."""

    kind: str
    path: Path
    files: list[Path]

    @property
    def num_files(self) -> int:
        return len(self.files)

    @property
    def size_bytes(self) -> int:
        return sum(status.st_size for status in map(os.lstat, self.files) if status.st_nlink == 1)


def freeable(root: Path, kinds: Collection[str], projects: Sequence[Path] = ()) -> list[Freeable]:
    """What could be freed of these kinds; `projects` are other clones that use the same cache."""
    found = []
    if "objects" in kinds:
        unused = unused_objects(root, projects)
        found.append(Freeable("objects", cache_folder(root), unused))
    for kind, name in (("scratch", ".cache"), ("runs", "runs")):
        if kind in kinds:
            folders = sorted(path for path in (root / name).glob("*"))
            found += [Freeable(kind, folder, list(_files(folder))) for folder in folders]
    return [item for item in found if item.files]


def free(root: Path, items: Iterable[Freeable], projects: Sequence[Path] = ()) -> None:
    """Deletes. Raises ConfigError where a stage is running, or where other clones may use the cache."""
    if (running := running_stages(root)) is not None:
        raise ConfigError(
            f"a stage is running (process {running}): wait for it, what it writes is not yet known as used"
        )
    items = list(items)
    if any(item.kind == "objects" for item in items):
        check_not_shared(root, projects)
    for item in items:
        if item.kind == "objects":
            for path in item.files:
                path.unlink()
        elif item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()


def unused_objects(root: Path, projects: Sequence[Path] = ()) -> list[Path]:
    """Files in DVC's cache that nothing uses, of these clones or in their history."""
    scope = ["--workspace", "--all-branches", "--all-tags", "--all-experiments"]
    others = ["--projects", *map(str, projects)] if projects else []
    lines = _dvc(root, "gc", *scope, *others, "--dry").splitlines()
    unused = [Path(line.removeprefix(REMOVING)) for line in lines if line.startswith(REMOVING)]
    return without_linked([path for path in unused if path.is_file()], linked_files([root, *projects]))


def without_linked(objects: Sequence[Path], linked: Collection[tuple[int, int]]) -> list[Path]:
    """Those that no file of a workspace is, and the listings of folders that hold none of those."""
    kept = {_hash(path) for path in objects if _inode(path) in linked}
    return [path for path in objects if _hash(path) not in kept and not kept & _listed(path)]


def linked_files(roots: Iterable[Path]) -> set[tuple[int, int]]:
    """Device and inode of every output in these workspaces, links followed."""
    folders = (root / name for root in roots for name in ("data", "models"))
    return {_inode(path) for folder in folders for path in _files(folder) if path.exists()}


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _hash(path: Path) -> str:
    """DVC names an object by two folders: 3f/94503b... is 3f94503b..."""
    return path.parent.name + path.name


def _listed(path: Path) -> set[str]:
    """The hashes of a folder's files, from its listing; of a file, none."""
    return {entry["md5"] for entry in json.loads(path.read_bytes())} if path.suffix == ".dir" else set()


def check_not_shared(root: Path, projects: Sequence[Path]) -> None:
    """A cache outside of the clone may hold what other clones use, and only the clones can say so."""
    folder = cache_folder(root)
    if not projects and not folder.is_relative_to(root.resolve()):
        raise ConfigError(
            f"{folder} lies outside of this clone, so that others may use it: name each of them with --project, "
            "or free the rest with --only scratch --only runs"
        )


def cache_folder(root: Path) -> Path:
    """Where DVC keeps its objects."""
    return Path(root, _dvc(root, "cache", "dir").strip()).resolve()


def running_stages(root: Path) -> int | None:
    """The process of a stage that DVC is running here, by its lock on outputs; None where there is none alive."""
    lock = root / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    writers = (entry["write"]["pid"] for entry in held.values() if entry.get("write"))
    return next((pid for pid in writers if Path(f"/proc/{pid}").exists()), None)


def _dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "dvc", *arguments]  # -P: no module of this folder in place of another
    environment = {**os.environ, "COLUMNS": "1000"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"dvc {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)
