"""What Git knows: a file as it was at a revision, what is not committed, who changed what."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import DataError


def git(root: Path, *arguments: str) -> str:
    """What `git ARGUMENTS` prints, run in `root`. Raises DataError with git's own words where it fails."""
    try:
        run = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError as error:
        raise DataError("git is not installed") from error
    if run.returncode:
        raise DataError(f"git {' '.join(arguments[:2])}: {run.stderr.strip() or f'exit code {run.returncode}'}")
    return run.stdout


def file_at(root: Path, revision: str, path: str) -> str | None:
    """The text of a file at a revision; path: relative to `root`. None where the revision has no such file.

    Raises DataError for a revision that does not exist.
    """
    if not git(root, "ls-tree", "--name-only", revision, "--", path):
        return None
    return git(root, "show", f"{revision}:./{path}")


def uncommitted(root: Path) -> list[str]:
    """Tracked files that differ from the last commit."""
    lines = git(root, "status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames").split("\0")
    return [line[3:] for line in lines if line]


@dataclass(frozen=True)
class Commit:
    """date: ISO 8601."""

    revision: str
    date: str
    author: str
    subject: str


def commits_of(root: Path, path: str) -> list[Commit]:
    """The commits that changed a file, the newest first; none where it was never committed, or nothing was."""
    try:
        lines = git(root, "log", "--format=%H%x1f%aI%x1f%an%x1f%s", "--", path).splitlines()
    except DataError:  # no repository, or no commit yet
        return []
    return [Commit(*line.split("\x1f", 3)) for line in lines]
