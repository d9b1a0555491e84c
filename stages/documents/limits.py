"""What one document may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass  # not frozen: OmegaConf would not let a config's values into it
class Limits:
    """cpu_s: CPU time per file, so that a busy machine rejects nothing; wall_s catches what waits without working.

    memory_bytes: address space of the reading process, the interpreter and its libraries (0.2 GB) included.
    """

    cpu_s: int = 60
    wall_s: int = 600
    memory_bytes: int = 2 << 30
    max_file_bytes: int = 512 << 20
    max_chars: int = 20_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1")
