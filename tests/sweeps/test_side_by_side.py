"""How many jobs fit, and a GPU for each."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from stages.sweeps.side_by_side import bounded, take_gpu, visible_gpus


@pytest.mark.parametrize(
    ("cores", "gpus", "free_gb", "threads", "job_gb", "expected"),
    [
        (8, 0, 64.0, 2, 0.0, 4),
        (8, 0, 64.0, 0, 0.0, 1),  # all cores each
        (8, 0, 5.0, 1, 2.0, 2),
        (8, 2, 64.0, 1, 0.0, 2),  # one each
        (8, 4, 64.0, 8, 30.0, 2),
        (2, 0, 1.0, 4, 16.0, 1),  # never none
    ],
)
def test_the_tightest_bound_counts(
    cores: int, gpus: int, free_gb: float, threads: int, job_gb: float, expected: int
) -> None:
    assert bounded(cores, gpus, free_gb, threads, job_gb) == expected


def test_visible_gpus_are_those_that_the_user_leaves_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert visible_gpus() == ["1", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_each_process_takes_a_gpu_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    taken = os.open(tmp_path / "groundtune-gpu-0.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(taken, fcntl.LOCK_EX)
    assert take_gpu(["0", "1"], tmp_path) == "1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert take_gpu(["0"], tmp_path) == ""
    os.close(taken)
