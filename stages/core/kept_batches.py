"""Arrays of batches that are done, kept until the stage has written its output: after a kill they are not made again.

The stage deletes the folder then, with what runs under other settings may have left there.

<folder>/<sha256 of what made it>.npy      as `numpy.save` writes it, whole or not there
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.core.atomic import save_array
from stages.core.engine import Batch, Engine, map_batches
from stages.core.fingerprint import fingerprint


class KeptBatches:
    """What an engine makes of batches, by what it was made from. `maker` identifies the function."""

    def __init__(self, folder: Path, engine: Engine, maker: str) -> None:
        self._folder, self._engine, self._maker = folder, engine, maker

    def map(
        self, load: Callable[[], Callable[[Batch], npt.NDArray[Any]]], batches: Sequence[Batch]
    ) -> list[npt.NDArray[Any]]:
        """The array of each batch, in their order; what is kept is not made again. Errors as of map_batches."""
        paths = [self._folder / f"{fingerprint(self._maker, batch)}.npy" for batch in batches]
        missing = [number for number, path in enumerate(paths) if not path.exists()]
        made = map_batches(self._engine, load, [batches[number] for number in missing], "Embedding")
        for place, array in made:
            save_array(paths[missing[place]], array)
        return [np.load(path, allow_pickle=False) for path in paths]
