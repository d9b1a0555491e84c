"""What this machine has, inside the limits that a container sets: cores, memory, disk, accelerators. Sizes in bytes."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Of the machine, or of the container."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Gpu:
    """A CUDA device that torch can use."""

    name: str
    total_bytes: int
    free_bytes: int


def num_cores() -> int:
    """Cores that this process may use: affinity, and the quota of a container (cgroup v2 cpu.max)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return min(cores, max(1, int(quota) // int(period))) if quota.isdigit() and period.isdigit() else cores


def memory() -> Memory:
    """Main memory; a container's limit counts where it is lower (cgroup v2 memory.max)."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdigit() and used.isdigit() and int(limit) < total:
        total, available = int(limit), min(available, max(0, int(limit) - int(used)))
    return Memory(total, available)


def free_disk_bytes(folder: Path) -> int:
    """Space left on the file system of `folder`."""
    return shutil.disk_usage(folder).free


def torch_is_cpu_build() -> bool:
    """True for a wheel such as 2.13.0+cpu, which sees no GPU whatever there is; asked without importing torch."""
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


def gpus() -> list[Gpu]:
    """The CUDA devices that torch can use. Imports torch (seconds) only where its build could see one."""
    if torch_is_cpu_build():
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(torch.cuda.get_device_name(number), total, free))
    return found


def driver_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver sees, whatever torch can use."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a broken driver counts as none
        return []
    return result.stdout.split("\n")[:-1] if result.returncode == 0 else []


def free_model_memory_bytes() -> int:
    """Memory left where models are loaded: on the first accelerator, else in main memory."""
    found = gpus()
    return found[0].free_bytes if found else memory().available_bytes


def _cgroup(name: str) -> str:
    try:
        return (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:  # no cgroup v2 here
        return ""
