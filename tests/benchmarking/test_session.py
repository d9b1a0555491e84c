"""Blocks that were answered are kept, once, for a day, and for one run at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stages.benchmarking.session import MAX_AGE_S, kept_blocks
from stages.core.errors import DataError


def test_a_run_that_ended_well_leaves_nothing(tmp_path: Path) -> None:
    with kept_blocks(tmp_path, "a") as journal:
        journal.add({"block": {"wall_s": 1.0}})
    with kept_blocks(tmp_path, "a") as journal:
        assert "block" not in journal


def test_a_run_that_failed_is_gone_on_with_by_its_own_key_only(tmp_path: Path) -> None:
    with pytest.raises(DataError), kept_blocks(tmp_path, "a") as journal:
        journal.add({"block": {"wall_s": 1.0}})
        raise DataError("stopped")
    with kept_blocks(tmp_path, "b") as journal:
        assert "block" not in journal
    with kept_blocks(tmp_path, "a") as journal:
        assert journal["block"] == {"wall_s": 1.0}


def test_what_is_older_than_a_day_is_measured_again(tmp_path: Path) -> None:
    with pytest.raises(DataError), kept_blocks(tmp_path, "a") as journal:
        journal.add({"block": {"wall_s": 1.0}})
        raise DataError("stopped")
    (path,) = tmp_path.glob("*.jsonl")
    old = time.time() - MAX_AGE_S - 60
    os.utime(path, (old, old))
    with kept_blocks(tmp_path, "a") as journal:
        assert "block" not in journal


def test_a_line_that_a_kill_tore_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(DataError), kept_blocks(tmp_path, "a") as journal:
        journal.add({"one": {"wall_s": 1.0}, "two": {"wall_s": 2.0}})
        raise DataError("stopped")
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    with kept_blocks(tmp_path, "a") as journal:
        assert "one" in journal and "two" not in journal
