"""What a stage cost when DVC ran it, as a small file in git: reports/<owner>/cost/<stage>[@variant].json

    {"device": "cpu: AMD EPYC 7763", "num_cores": 2, "wall_s": 41.8, "cpu_s": 63.1, "peak_memory_bytes": 1287000064,
     "peak_gpu_bytes": null, "platform": "Linux x86_64", "stage": "train_rag_lora", "variant": "",
     "launch": {"kind": "ddp", "num_processes": 2}}

`owner` is the domain, the task, or base/<model>; `launch` stands where a stage trains. The file is no output of DVC:
costs differ between two runs, outputs do not, and by how many processes was trained changes no more than rounding. A
stage that DVC takes from its cache did not run, and keeps the costs of when it did.

Peak memory is that of the process and all its children together: sampled, and never below the kernel's own high-water
mark of the process (VmHWM). Pages that processes share count in each.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.atomic import write_json

if TYPE_CHECKING:
    import psutil

SAMPLE_EVERY_S = 1.0


@contextmanager
def noted_cost(root: Path, stage: str, variant: str, section: Mapping[str, Any]) -> Iterator[None]:
    """Notes what the process cost up to the end of the block, where it ends well. Never fails the stage."""
    with MemoryPeak() as memory:
        yield
    if os.environ.get("RANK", "0") != "0":  # of several training processes one writes
        return
    name = f"{stage}@{variant}" if variant else stage
    try:
        cost = {"stage": stage, "variant": variant, **launch_of(section), **process_cost(memory)}
        write_json(root / "reports" / owner(section) / "cost" / f"{name}.json", cost)
    except Exception as error:
        print(f"{name}: its cost was not noted: {error}", file=sys.stderr)


def owner(section: Mapping[str, Any]) -> str:
    """The folder below reports/ that a stage with these settings belongs to."""
    task = section.get("task")
    name = section.get("domain") or (task.get("name") if isinstance(task, Mapping) else task)
    return str(name or f"base/{section['model']['name']}")


def launch_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """How the processes that trained were launched (conf/launch); empty for a stage that trains nothing."""
    if not (launch := section.get("launch")):
        return {}
    torch = sys.modules.get("torch")
    num = 1 if launch["kind"] == "single" else launch.get("num_processes")
    return {"launch": {"kind": launch["kind"], "num_processes": num or (torch.cuda.device_count() if torch else None)}}


def process_cost(memory: MemoryPeak) -> dict[str, Any]:
    """Wall time since the process started, CPU time with that of its finished children, memory, and the device."""
    import psutil

    peak_gpu_bytes, device = _device()
    return {
        "wall_s": round(time.time() - psutil.Process().create_time(), 2),
        "cpu_s": round(sum(os.times()[:4]), 2),
        "peak_memory_bytes": max(memory.peak_bytes, high_water_bytes()),
        "peak_gpu_bytes": peak_gpu_bytes,
        "device": device,
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


class MemoryPeak:
    """Samples resident memory of this process and its children while the block runs."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.num_samples = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-peak", daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        with suppress(Exception):  # an unreadable /proc must not end in a traceback of this thread
            import psutil

            while not self._ended.wait(SAMPLE_EVERY_S):
                process = psutil.Process()
                sizes = map(_resident_bytes, [process, *process.children(recursive=True)])
                self.peak_bytes = max(self.peak_bytes, sum(sizes))
                self.num_samples += 1


def _resident_bytes(process: psutil.Process) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended
        return 0


def high_water_bytes() -> int:
    """The most memory that this process had (Linux: VmHWM; ru_maxrss would start at its parent's); else 0."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(fields[1]) * 1024 for fields in lines), 0)


def _device() -> tuple[int | None, str]:
    """Peak GPU memory and name of the device; the GPU's where the stage has used it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        num_devices = torch.cuda.device_count()
        peak = max(int(torch.cuda.max_memory_allocated(number)) for number in range(num_devices))
        return peak, f"gpu: {num_devices} x {torch.cuda.get_device_name(0)}"
    return None, f"cpu: {cpu_name()}"


def cpu_name() -> str:
    """The processor, as Linux calls it; else what Python knows of it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
