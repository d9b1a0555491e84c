"""Where a job of a sweep reads and writes: what it reads is noted, its checkpoints are kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from stages.core.fingerprint import sha256_file
from stages.core.workspace import Workspace


@dataclass(frozen=True)
class JobWorkspace(Workspace):
    """used: what was read of the repository (relative or absolute, as it was asked for)."""

    used: set[str] = field(default_factory=set)

    def read(self, relative: str | Path) -> Path:
        path = super().read(relative)
        if not path.is_relative_to(self.outputs):
            self.used.add(str(relative))
        return path

    def cache(self, *parts: str) -> Path:
        """Checkpoints go into the job's own folder: two sweeps may train the same thing, and a training that is done
        tidies up beside itself."""
        if parts[0] != "checkpoints":
            return super().cache(*parts)
        path = self.outputs.joinpath(".cache", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def inputs_sha256(self) -> dict[str, str]:
        """Every file that was read, or lies in a folder that was, with its hash."""
        return {name: digest for item in sorted(self.used) for name, digest in hashes(self.inputs, item).items()}


def hashes(root: Path, item: str) -> dict[str, str]:
    """The hashes of a file, or of all files in a folder; empty where it is not there."""
    path = root / item
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.exists() else []
    return {
        str(Path(item) / file.relative_to(path)) if file != path else item: _sha256(file, *_stat(file))
        for file in files
    }


def unchanged(root: Path, recorded: dict[str, str]) -> bool:
    """Whether all these files are what they were."""
    return all(hashes(root, name).get(name) == digest for name, digest in recorded.items())


def _stat(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Jobs share a process and inputs: a base of 16 GB is read for it once."""
    return sha256_file(file)
