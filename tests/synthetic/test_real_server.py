"""Against `transformers serve`, a real OpenAI-compatible server, with a random model: plumbing, not quality."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.generate_sft import Config, run

START_S = 120
NUM_CHUNKS = 6


@pytest.fixture
def served(random_base: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    if missing := [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"transformers[serving] is not installed: no {', '.join(missing)}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [Path(sys.executable).with_name("transformers"), "serve", random_base, "--port", str(port)]
    with open(tmp_path / "serve.log", "wb") as log:
        process = subprocess.Popen([*map(str, command), "--device", "cpu"], env=environment, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_S * 4):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"not up after {START_S} s: {log.read_text()}")


@pytest.mark.slow
def test_a_real_server_answers_once_and_for_all(
    served: tuple[str, subprocess.Popen[bytes]],
    random_base: Path,
    config: Config,
    workspace: Workspace,
    knowledge: Callable[[int], None],
) -> None:
    url, process = served
    knowledge(NUM_CHUNKS)
    provider = replace(
        config.provider, base_url=url, model=str(random_base), max_tokens=8, timeout_s=60.0, max_concurrent=2
    )
    config = replace(
        config, provider=provider, wording=replace(config.wording, system="", user="{document}{instruction}{example}")
    )
    for _ in range(2):  # what a random model writes is no JSON; the second time the server is gone
        with pytest.raises(DataError, match=rf"no record was kept of {NUM_CHUNKS} read(.|\n)*invalid_json"):
            run(config, workspace)
        process.kill()
        process.wait()
    rows = read_jsonl(next(workspace.cache("requests").glob("*.jsonl")))
    assert len(rows) == NUM_CHUNKS
    assert all(row["num_prompt_tokens"] > 20 and row["finish_reason"] in ("stop", "length") for row in rows)
    assert any(row["content"] for row in rows)
