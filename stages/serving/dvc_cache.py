"""What DVC's cache holds, and whether the workspace is what dvc.lock says; nothing in the workspace is touched.

with open_cache(root) as cache:
    link_from_cache(cache, LockedFile("models/export/demo/rag", "0f3c....dir"), Path(".cache/releases/demo-rag/v1.0.0"))
    differences(cache, root, LockedFile("models/demo/rag_lora", "77ab....dir"))      # [] or what is wrong
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.atomic import new_folder
from stages.core.dvc_lock import LockedFile
from stages.core.errors import DataError

HASH = "md5"
READ_ONLY = 0o444


@contextmanager
def open_repository(root: Path) -> Iterator[Any]:
    """DVC's own view of a repository. Its errors are raised as DataError."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repository:
            yield repository
    except DvcException as error:
        raise DataError(f"DVC: {error}") from error


@contextmanager
def open_cache(root: Path) -> Iterator[Any]:
    """The local cache, wherever the configuration has it."""
    with open_repository(root) as repository:
        yield repository.cache.local


def cached(cache: Any, entry: LockedFile) -> Any:
    """A locked file or folder as DVC's object, all of it in the cache; else DataError naming how to fetch it."""
    from dvc_data.hashfile import load
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        found: Any = load(cache, HashInfo(HASH, entry.md5))
        hashes = [info.value for _, _, info in found] if entry.md5.endswith(".dir") else [entry.md5]
    except FileNotFoundError:
        hashes = []
    missing = [value for value in hashes if not Path(cache.oid_to_path(value)).is_file()]
    if missing or not hashes:
        what = f"{len(missing)} of {len(hashes)} files are" if hashes else "is"
        raise DataError(
            f"{entry.path} ({entry.md5[:12]}): {what} not in DVC's cache; `dvc fetch --all-tags {entry.path}` brings "
            "it from the remote that it was pushed to"
        )
    return found


def link_from_cache(cache: Any, entry: LockedFile, folder: Path) -> None:
    """Puts a locked folder under the name `folder`: links, where `cache.type` allows them, so nothing is copied."""
    from dvc.fs import localfs
    from dvc_data.hashfile.checkout import checkout

    tree = cached(cache, entry)
    with new_folder(folder) as new:
        checkout(str(new), localfs, tree, cache, force=True, quiet=True)
        for path in new.rglob("*"):
            if path.is_file() and not path.is_symlink():  # links have the cache's own mode, which is the same
                path.chmod(READ_ONLY)


def differences(cache: Any, root: Path, entry: LockedFile, anew: bool = False) -> list[str]:
    """What in the workspace is not what the lock says, [] where all is; anew: hashes are computed, not remembered.

    Raises FileNotFoundError where there is nothing at the path.
    """
    from dvc.fs import localfs
    from dvc_data.hashfile import load
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.hash_info import HashInfo

    hashing = HashFileDB(localfs, cache.path) if anew else cache
    found: Any = build(hashing, str(root / entry.path), localfs, HASH, dry_run=True)[2]
    if found.hash_info.value == entry.md5:
        return []
    try:
        trees: list[Any] = [load(cache, HashInfo(HASH, entry.md5)), found]
        wanted, there = ({key: info.value for key, _, info in tree} for tree in trees)
    except (FileNotFoundError, TypeError):  # a single file, or a folder that only the remote could list
        return [f"{entry.path}: {found.hash_info.value} where dvc.lock has {entry.md5}"]
    states = dict.fromkeys(wanted.keys() - there.keys(), "is missing")
    states |= dict.fromkeys(there.keys() - wanted.keys(), "is not of it")
    states |= {key: "was changed" for key in wanted.keys() & there.keys() if wanted[key] != there[key]}
    return [f"{entry.path}/{'/'.join(key)} {states[key]}" for key in sorted(states)]
