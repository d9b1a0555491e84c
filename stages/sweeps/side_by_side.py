"""How many jobs of a sweep may run at once on this machine, and which GPU each of them gets.

The resolver `${side_by_side:}` in conf/hydra/launcher/local.yaml. A job needs its stage's threads,
`sweep.job_memory_gb` of memory where that is set, and a GPU of its own where there are GPUs.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SLOTS = Path("/tmp")  # noqa: S108  # of the machine: sweeps in two checkouts share its GPUs


def register() -> None:
    """Makes the resolver known to OmegaConf."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("side_by_side", lambda *, _root_: num_side_by_side(_root_), replace=True)


def num_side_by_side(config: Any) -> int:
    """For the stage that Hydra runs. config: the whole configuration, with `hydra`."""
    import psutil

    training = config[config.hydra.job.name].get("training") or {}
    available_gb = psutil.virtual_memory().available / 2**30
    return bounded(
        len(os.sched_getaffinity(0)),
        len(visible_gpus()),
        available_gb,
        int(training.get("num_threads", 1)),
        float(config.sweep.job_memory_gb),
    )


def bounded(num_cores: int, num_gpus: int, available_gb: float, num_threads: int, job_memory_gb: float) -> int:
    """At least 1. num_threads: of a job, 0: all cores. job_memory_gb: 0: not known, no bound."""
    bounds = [num_gpus or num_cores // (num_threads or num_cores)]
    if job_memory_gb:
        bounds.append(int(available_gb / job_memory_gb))
    return max(1, min(bounds))


def visible_gpus() -> list[str]:
    """Their numbers, as in CUDA_VISIBLE_DEVICES, which narrows them down where it is set."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [part for part in visible.split(",") if part and part != "-1"]
    return sorted(
        (name.removeprefix("nvidia") for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)), key=int
    )


def take_gpu(gpus: Sequence[str], slots: Path = SLOTS) -> str:
    """One that no other job of ours has, for the life of this process; "" where there is nothing to choose.

    Before torch starts: this process sees no other GPU afterwards. Where all are taken, the first.
    """
    if len(gpus) < 2:
        return ""
    for gpu in gpus:
        slot = os.open(slots / f"groundtune-gpu-{gpu}.lock", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(slot)
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # the lock goes with the process
        return gpu
    return gpus[0]
