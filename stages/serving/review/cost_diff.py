"""What stages cost before and after: reports/<owner>/cost/<stage>.json, as stages.core.cost writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.serving.review.settings import CostLimits


@dataclass(frozen=True)
class Cost:
    """Of one run of a stage; memory is the device's where it ran on a GPU, else main memory."""

    wall_s: float
    peak_memory_bytes: int
    peak_gpu_bytes: int | None
    device: str


@dataclass(frozen=True)
class CostChange:
    """exceeded: "time" and "memory" where they grew beyond the limits; never where the device is another."""

    stage: str
    before: Cost | None
    after: Cost | None
    exceeded: list[str]


def cost_diff(stage: str, before: Mapping[str, Any], after: Mapping[str, Any], limits: CostLimits) -> CostChange:
    """From two cost files; {} where there is none."""
    old, new = _cost(before), _cost(after)
    exceeded = []
    if old and new and old.device == new.device:
        ratios = {
            "time": (new.wall_s, old.wall_s, limits.max_time_ratio),
            "memory": (new.peak_memory_bytes, old.peak_memory_bytes, limits.max_memory_ratio),
            "GPU memory": (new.peak_gpu_bytes or 0, old.peak_gpu_bytes or 0, limits.max_memory_ratio),
        }
        exceeded = [name for name, (now, then, limit) in ratios.items() if limit and then and now > limit * then]
    return CostChange(stage, old, new, exceeded)


def _cost(values: Mapping[str, Any]) -> Cost | None:
    if not values:
        return None
    return Cost(
        float(values["wall_s"]), int(values["peak_memory_bytes"]), values["peak_gpu_bytes"], str(values["device"])
    )
