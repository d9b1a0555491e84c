from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stages.serving import machine


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def test_without_limits_the_machine_counts(cgroup: Path) -> None:
    assert machine.num_cores() == len(os.sched_getaffinity(0))
    assert machine.memory().total_bytes == psutil.virtual_memory().total


def test_a_containers_limits_count_where_they_are_lower(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("300000\n")
    (cgroup / "cpu.max").write_text("150000 100000\n")
    assert machine.memory() == machine.Memory(1_000_000, 700_000)
    assert machine.num_cores() == 1


def test_no_limit_is_no_limit(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "cpu.max").write_text("max 100000\n")
    assert machine.memory().total_bytes == psutil.virtual_memory().total
    assert machine.num_cores() == len(os.sched_getaffinity(0))


def test_a_small_quota_is_still_one_core(cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text("1000 100000\n")
    assert machine.num_cores() == 1


def test_a_cpu_build_is_not_asked_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "2.13.0+cpu")  # type: ignore[attr-defined]
    assert machine.gpus() == []


def test_the_drivers_gpus_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho NVIDIA A100\necho NVIDIA T4\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine.driver_gpus() == ["NVIDIA A100", "NVIDIA T4"]
    smi.write_text("#!/bin/sh\necho failed\nexit 9\n")
    assert machine.driver_gpus() == []
    smi.unlink()
    assert machine.driver_gpus() == []


def test_memory_for_models_is_main_memory_without_a_gpu(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", list)
    (cgroup / "memory.max").write_text("1000\n")
    (cgroup / "memory.current").write_text("400\n")
    assert machine.free_model_memory_bytes() == 600
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("A", 80, 50)])
    assert machine.free_model_memory_bytes() == 50


def test_torchs_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        mem_get_info=lambda number: (70 + number, 80),
        get_device_name=lambda number: f"GPU {number}",
    )
    monkeypatch.setattr(machine, "torch_is_cpu_build", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert machine.gpus() == [machine.Gpu("GPU 0", 80, 70), machine.Gpu("GPU 1", 80, 71)]
    cuda.is_available = lambda: False
    assert machine.gpus() == []
