"""The profiles of axolotl: conf/axolotl."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from stages.core.schema import one_of

DEVICES = ("cpu", "gpu")


@dataclass
class Axolotl:
    """How axolotl is run here. What is trained, and with which numbers, is the stage's: lora, training, seed.

    options: further keys of axolotl's own, such as chunked_cross_entropy: true; those that groundtune sets are refused.
    """

    name: str = MISSING
    venv: str = MISSING  # its virtual environment, made by `make axolotl`; relative to the repository, or absolute
    version: str = MISSING  # the one that was tested
    device: str = MISSING  # cpu: float32 throughout, none of the kernels that need a GPU
    quantise: bool = MISSING  # QLoRA (4-bit base) instead of LoRA
    optimizer: str = MISSING
    silence_timeout_s: float = MISSING  # without a sign of life for so long it is stopped
    plugins: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self.device, DEVICES, "axolotl.device")
        if self.silence_timeout_s <= 0:
            raise ValueError("axolotl.silence_timeout_s must be above 0")
