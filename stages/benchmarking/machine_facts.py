"""Where a benchmark ran, in a line: processor, cores, memory, accelerators."""

from __future__ import annotations

import platform
from pathlib import Path

from stages.serving.machine import GIB, driver_gpus, memory, num_cores

CPU_INFO = Path("/proc/cpuinfo")


def machine_facts() -> str:
    """`AMD EPYC 7B13, 2 cores, 15 GiB, no GPU`."""
    gpus = driver_gpus()
    accelerators = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)) or "no GPU"
    cores = num_cores()
    return (
        f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, {memory().total_bytes / GIB:.0f} GiB, {accelerators}"
    )


def _processor() -> str:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
