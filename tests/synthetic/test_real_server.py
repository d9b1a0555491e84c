"""Against `transformers serve`, a real OpenAI-compatible server, with a random model: plumbing, not quality."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.generate_sft import Config, run

NUM_CHUNKS = 6


@pytest.mark.slow
def test_a_real_server_answers_once_and_for_all(
    transformers_serve: Callable[[Path], tuple[str, subprocess.Popen[bytes]]],
    random_base: Path,
    config: Config,
    workspace: Workspace,
    knowledge: Callable[[int], None],
) -> None:
    url, process = transformers_serve(random_base)
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
