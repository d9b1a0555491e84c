"""A repository of a few files with a branch: small enough to know every number of its review."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[str, Any], None]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def number(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": 90}


def lock(code: str, params: dict[str, Any], data: str) -> dict[str, Any]:
    entry = {
        "cmd": "python -m stages.train",
        "deps": [{"path": "data/x", "md5": data}, {"path": "stages/train.py", "md5": code}],
        "params": {"params.yaml": {"train": params}},
        "outs": [{"path": "models/x", "md5": code + data}],
    }
    return {"schema": "2.0", "stages": {"train": entry}}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: Any) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    return write


@pytest.fixture
def repository(tmp_path: Path, write: Write) -> Path:
    """main with a measured report; a branch `work` that is checked out and equal so far."""
    git(tmp_path, "init", "-q", "-b", "main")
    code_md5 = "d41d8cd98f00b204e9800998ecf8427e"  # of an empty file
    write("stages/train.py", "")
    write("params.yaml", {"seed": 13, "model": {"name": "tiny"}, "train": {"r": 8, "model": {"name": "tiny"}}})
    write("dvc.yaml", {"stages": {"train": {"cmd": "python -m stages.train"}}})
    write("dvc.lock", lock(code_md5, {"r": 8, "model": {"name": "tiny"}}, "data-1"))
    answers = {"exact_match": number(0.9, 0.85, 0.95), "loss": number(0.5, 0.4, 0.6)}
    write("reports/demo/metrics.json", {"answers": {"tuned_docs": answers}, "best": "hybrid"})
    ledger = {"num_read": 10, "num_kept": 9, "num_rejected": 1, "rejected": {"duplicate": 1}}
    write("reports/demo/clean_qa/metrics.json", ledger)
    write("reports/demo/build_rag_data/metrics.json", {"num_leaks": 0, "splits_sha256": "a" * 64})
    write("reports/demo/figures/answers.png", b"old picture")
    write("reports/demo/train/curve.csv", "step,train_loss,eval_loss,tokens_per_s\n1,2.0,2.5,100\n2,1.0,1.5,100\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "main")
    git(tmp_path, "switch", "-qc", "work")
    return tmp_path
