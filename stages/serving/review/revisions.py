"""The two sides of a review: a revision of git, and the working tree with what is not committed in it.

Only git itself is asked, and only for files that differ: a review takes seconds whatever is in the repository.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import ConfigError, DataError
from stages.core.git import git_bytes

DEFAULT_BASES = ("main", "origin/main", "master", "origin/master")


@dataclass(frozen=True)
class Base:
    """What is compared with: the commit where the work left `name`."""

    name: str
    commit: str


class Revisions:
    """The repository at `root`: its base, the files that differ from it, and files as they were there."""

    def __init__(self, root: Path, base: str = "") -> None:
        """Raises ConfigError where there is no git, no repository, no such revision, or no common history."""
        if shutil.which("git") is None:
            raise ConfigError("git is not installed, and a review compares revisions of git")
        self.root = root
        if self._git("rev-parse", "--git-dir", check=False) is None:
            raise ConfigError(f"{root}: not a git repository; a review compares revisions of git")
        name = base or self._default_base()
        self.base = Base(name, self._merge_base(self._commit(name), name))
        self.head = self._commit("HEAD")

    def changed(self) -> list[str]:
        """Paths that differ from the base, uncommitted and untracked ones included."""
        differing = self._paths("diff", "--name-only", "-z", "--relative", "--no-renames", self.base.commit)
        return sorted({*differing, *self._untracked()})

    def uncommitted(self) -> list[str]:
        """Paths with changes that no commit holds."""
        return sorted({*self._paths("diff", "--name-only", "-z", "--relative", "HEAD"), *self._untracked()})

    def has_metrics(self) -> bool:
        """Whether the base holds any metrics.json."""
        names = self._paths("ls-tree", "-r", "-z", "--name-only", self.base.commit, "--", "reports/")
        return any(name.endswith("/metrics.json") for name in names)

    def before(self, path: str) -> bytes | None:
        """The file as it was in the base; None where it was not there."""
        return self._git("show", f"{self.base.commit}:./{path}", check=False)

    def after(self, path: str) -> bytes | None:
        """The file as it stands in the working tree; None where it is not there."""
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def _untracked(self) -> list[str]:
        return self._paths("ls-files", "--others", "--exclude-standard", "-z")

    def _default_base(self) -> str:
        found = (name for name in DEFAULT_BASES if self._git("rev-parse", "--verify", "-q", name, check=False))
        name = next(found, None)
        if name is None:
            raise ConfigError(f"none of {', '.join(DEFAULT_BASES)} is there: name the base, as in `review HEAD~1`")
        return name

    def _commit(self, name: str) -> str:
        found = self._git("rev-parse", "--verify", "-q", "--end-of-options", f"{name}^{{commit}}", check=False)
        if found is None:
            raise ConfigError(f"{name}: git knows no such revision{self._shallow_hint(name)}")
        return found.decode().strip()

    def _merge_base(self, commit: str, name: str) -> str:
        found = self._git("merge-base", commit, "HEAD", check=False)
        if found is None:
            raise ConfigError(f"{name} and HEAD have no common history{self._shallow_hint(name)}")
        return found.decode().strip()

    def _shallow_hint(self, name: str) -> str:
        if (self._git("rev-parse", "--is-shallow-repository") or b"").strip() == b"true":
            return "; this clone is shallow: `git fetch --unshallow`, or `git fetch --depth=100 origin BRANCH`, gets it"
        return f"; `git fetch origin` may get {name}" if name.startswith("origin/") else ""

    def _paths(self, *arguments: str) -> list[str]:
        output = self._git(*arguments)
        assert output is not None  # checked
        return [name for name in output.decode("utf-8", "surrogateescape").split("\0") if name]

    def _git(self, *arguments: str, check: bool = True) -> bytes | None:
        """What git prints; None where it fails and `check` is off. Raises DataError with git's message."""
        try:
            return git_bytes(self.root, *arguments)
        except DataError:
            if check:
                raise
            return None
