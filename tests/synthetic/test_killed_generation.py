"""Killed five times at random (SIGKILL), the stage writes what it writes when never killed, and pays nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

from stages.core.jsonl import iterate_lines
from stages.core.workspace import ROOT, Workspace
from stages.generate_sft import Config, run

SCRIPT = Path(__file__).with_name("killed_generation.py")
NUM_CHUNKS, NUM_KILLS, MAX_CONCURRENT = 120, 5, 4


def written(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("data/mills/sft/*.jsonl"), *folder.glob("reports/**/metrics.json")]
    return {path.name: path.read_bytes() for path in files}


def num_finished(folder: Path) -> int:
    lines = [line for path in folder.glob(".cache/requests/*.jsonl") for line in iterate_lines(path)]
    return sum(not line.error for line in lines)


def killed_runs(folder: Path, values: Path, server: Any) -> None:
    """Each child dies after a random number of further answers; what was finished then is never asked for again."""
    random = Random(7)
    for _ in range(NUM_KILLS):
        before, wanted = num_finished(folder), random.randint(3, 20)
        child = subprocess.Popen([sys.executable, SCRIPT, str(folder), str(values)], cwd=ROOT)
        while num_finished(folder) < before + wanted and child.poll() is None:
            time.sleep(0.005)
        assert child.poll() is None, "it ended before it was killed"
        child.kill()
        child.wait()
        time.sleep(0.1)  # what the server was answering


def test_killed_five_times_is_never_killed(
    server: Any, config: Config, knowledge: Callable[[int], None], tmp_path: Path, chunks: Any
) -> None:
    knowledge(NUM_CHUNKS)
    names = [chunk.text.split()[2] for chunk in chunks(NUM_CHUNKS)]
    kinds = ("invalid_json", "german", "wrong_schema", "invented")
    server.faults = {name: [kinds[n % 4]] for n, name in enumerate(names) if n % 5 == 0}
    server.delay_s = 0.02
    config = replace(config, provider=replace(config.provider, max_concurrent=MAX_CONCURRENT, timeout_s=5.0))
    values = tmp_path / "config.json"
    values.write_text(json.dumps(asdict(config)), encoding="utf-8")

    killed_runs(tmp_path, values, server)
    lost = sum(server.answered.values()) - num_finished(tmp_path)
    assert 0 <= lost <= NUM_KILLS * MAX_CONCURRENT
    journal = next(tmp_path.glob(".cache/requests/*.jsonl"))
    with open(journal, "ab") as file:
        file.write(b'{"key": "torn by the k')
    run(config, Workspace(inputs=tmp_path, outputs=tmp_path))
    assert num_finished(tmp_path) == NUM_CHUNKS
    assert sum(server.answered.values()) == NUM_CHUNKS + lost  # nothing that was finished came twice
    repeated = Counter(server.answered.values())
    assert repeated[1] >= NUM_CHUNKS - lost
    after_kills = written(tmp_path)

    never = tmp_path / "never_killed"
    (never / "data/mills").mkdir(parents=True)
    (never / "data/mills/knowledge.sqlite").write_bytes((tmp_path / "data/mills/knowledge.sqlite").read_bytes())
    run(config, Workspace(inputs=never, outputs=never))
    assert written(never) == after_kills
    assert json.loads(after_kills["metrics.json"])["num_rejected"] == 24
