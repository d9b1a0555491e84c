"""Where a benchmark ran, in a line: processor, cores, memory, accelerators."""

from __future__ import annotations

from stages.core.cost import cpu_name
from stages.serving.machine import GIB, driver_gpus, memory, num_cores


def machine_facts() -> str:
    """`AMD EPYC 7B13, 2 cores, 15 GiB, no GPU`."""
    gpus = driver_gpus()
    accelerators = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)) or "no GPU"
    cores = num_cores()
    return f"{cpu_name()}, {cores} core{'s' if cores > 1 else ''}, {memory().total_bytes / GIB:.0f} GiB, {accelerators}"
