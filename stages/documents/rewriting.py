"""A file that would be written again with the same bytes is left as it is.

note = Note(folder, output, fingerprint(inputs))
found = note.value()          # what was said of the output, if it is still what these inputs made
note.write({"num": 3})        # after the output was written
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.fingerprint import sha256_file


class Note:
    """What an output was made from, kept in a folder of notes that may be deleted at any time."""

    def __init__(self, folder: Path, output: Path, inputs: str) -> None:
        self._output = output
        self._inputs = inputs
        self._path = folder / f"{hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]}.json"

    def value(self) -> Any:
        """None where the output is missing, was changed by anybody, or was made from something else."""
        try:
            note = json.loads(self._path.read_text(encoding="utf-8"))
            known = note["inputs"] == self._inputs and note["sha256"] == sha256_file(self._output)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return note["value"] if known else None

    def write(self, value: Any) -> None:
        """value: anything JSON can hold."""
        write_json(self._path, {"inputs": self._inputs, "sha256": sha256_file(self._output), "value": value})
