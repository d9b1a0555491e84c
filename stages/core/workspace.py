"""Where a stage reads and writes.

Run by DVC, a stage reads and writes the repository. Run as a trial (with Hydra overrides), it writes
under ``runs/`` and reads from there first, then from the repository: a trial that trains and then
evaluates sees its own adapter, and never touches an output of DVC's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workspace:
    """Two roots: `inputs` is only read; everything written goes under `outputs`."""

    inputs: Path = ROOT
    outputs: Path = ROOT

    def read(self, relative: str | Path) -> Path:
        """The existing file or folder `relative`; absolute paths are taken as they are.

        Raises DataError where it is neither in the outputs nor in the inputs.
        """
        for root in (self.outputs, self.inputs):
            path = root / relative
            if path.exists():
                return path
        raise DataError(f"{relative}: no such file or folder (looked in {self.inputs}); run `dvc repro` to build it")

    def write(self, relative: str | Path) -> Path:
        """The place to write `relative` to; its parent folder exists afterwards.

        Raises ConfigError for a place outside: what a setting such as `..` names would be replaced.
        """
        path = self.outputs / relative
        whole, root = (Path(os.path.normpath(place.absolute())) for place in (path, self.outputs))
        if root not in whole.parents:
            raise ConfigError(f"{relative}: what is written lies below {self.outputs}; name a folder there")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def cache(self, *parts: str) -> Path:
        """A folder for what may be deleted at any time (checkpoints, stores, embeddings); git-ignored."""
        path = self.inputs.joinpath(".cache", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path
