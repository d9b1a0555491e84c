"""What a stage cost is noted when it ends well, in the right place, and never fails it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.core.cost import MemoryPeak, high_water_bytes, noted_cost, owner

KEYS = {
    *("stage", "variant", "wall_s", "cpu_s", "peak_memory_bytes", "peak_gpu_bytes"),
    *("device", "num_cores", "platform"),
}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"domain": "demo", "model": {"name": "tiny"}}, "demo"),
        ({"task": {"name": "sick"}, "model": {"name": "tiny"}}, "sick"),
        ({"task": "contracts"}, "contracts"),
        ({"model": {"name": "tiny"}}, "base/tiny"),
    ],
)
def test_a_cost_lies_beside_the_reports_of_its_domain_task_or_model(section: dict[str, Any], expected: str) -> None:
    assert owner(section) == expected


def test_a_cost_is_noted(tmp_path: Path) -> None:
    with noted_cost(tmp_path, "train", "ce", {"domain": "demo"}):
        kept = bytearray(200_000_000)
    cost = json.loads((tmp_path / "reports/demo/cost/train@ce.json").read_text())
    assert set(cost) == KEYS
    assert (cost["stage"], cost["variant"]) == ("train", "ce")
    assert cost["peak_memory_bytes"] >= len(kept) and cost["wall_s"] >= 0 and cost["cpu_s"] > 0


def test_how_a_training_was_launched_is_noted(tmp_path: Path) -> None:
    found = []
    for launch in ({"kind": "single"}, {"kind": "ddp", "num_processes": 2}):
        with noted_cost(tmp_path, "train", "", {"domain": "demo", "launch": launch}):
            pass
        found.append(json.loads((tmp_path / "reports/demo/cost/train.json").read_text())["launch"])
    assert found == [{"kind": "single", "num_processes": 1}, {"kind": "ddp", "num_processes": 2}]


def test_a_stage_that_fails_notes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), noted_cost(tmp_path, "train", "", {"domain": "demo"}):
        raise ValueError("broken")
    assert not (tmp_path / "reports").exists()


def test_a_cost_that_cannot_be_noted_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reports").write_text("a file where the folder should be")
    with noted_cost(tmp_path, "train", "", {"domain": "demo"}):
        pass
    assert capsys.readouterr().err.startswith("train: its cost was not noted: ")


def test_of_several_training_processes_the_first_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with noted_cost(tmp_path, "train", "", {"domain": "demo"}):
        pass
    assert not (tmp_path / "reports").exists()


def test_memory_of_children_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.core.cost.SAMPLE_EVERY_S", 0.05)
    child = "x = bytearray(300_000_000); print(flush=True); input()"
    with MemoryPeak() as peak:
        process = subprocess.Popen(
            [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        seen = peak.num_samples
        while peak.num_samples < seen + 2:
            time.sleep(0.01)
        process.communicate("\n")
    assert peak.peak_bytes >= 300_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_the_high_water_mark_is_this_process_s() -> None:
    kept = bytearray(50_000_000)
    assert high_water_bytes() >= len(kept)
