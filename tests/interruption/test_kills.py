"""Killed in the middle and run again: the same bytes, no orphan, no lock. (All stages: tests/benchmarks/interruption.py)"""

from __future__ import annotations

import sys
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kill_plan import Kill
from kills import kill_and_run_again
from small_clone import Clone, build_clone
from traces import HALF_CHECKPOINT, HALF_LOCK, HALF_OUTPUT, PAST_CHECKPOINT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = [
    Kill("make_demo@world", "stage", "group", SIGINT, 0.5),
    Kill("ingest", "stage", "process", SIGTERM, 0.6),
    Kill("clean_qa", "dvc", "group", SIGINT, 0.5),
    Kill("clean_qa", "dvc", "process", SIGKILL, HALF_LOCK),
    Kill("base_model", "stage", "group", SIGINT, 0.7),
    Kill("base_model", "stage", "process", SIGKILL, 0.4),
    Kill("train_book_lora", "dvc", "process", SIGKILL, PAST_CHECKPOINT, 0.2),
    Kill("train_book_lora", "stage", "process", SIGKILL, HALF_CHECKPOINT),
    Kill("train_book_lora", "stage", "group", SIGINT, PAST_CHECKPOINT, 0.1),
    Kill("train_book_lora", "stage", "process", SIGTERM, HALF_OUTPUT),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return build_clone(tmp_path_factory.mktemp("clone"), targets=["clean_qa", "train_book_lora"])


@pytest.mark.parametrize("kill", KILLS, ids=lambda k: f"{k.stage}-{k.through}-{k.target}-{k.signal.name}-{k.moment}")
def test_killed_and_run_again_is_never_killed(clone: Clone, kill: Kill) -> None:
    outcome = kill_and_run_again(clone, kill)
    assert outcome.faults == []
