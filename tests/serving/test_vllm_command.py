"""The command line for vLLM, from what an export holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.serving.vllm_command import read_served, vllm_command


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A merged model."""
    folder = tmp_path / "models" / "export" / "world" / "rag"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    (folder / "model.safetensors").write_bytes(b"x")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 12, "bias": "none", **changes}))
    return folder


def run(tmp_path: Path, *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(vllm_command(lambda: "world", Workspace(tmp_path, tmp_path)))
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("name", ["world/rag", "rag", "models/export/world/rag"])
def test_a_merged_model(export: Path, tmp_path: Path, name: str) -> None:
    result = run(tmp_path, name, "--max-num-seqs", "8", "--max-model-len", "2048")
    assert result.stdout == (
        f"vllm serve {export} --served-model-name world-rag --max-model-len 2048 --max-num-seqs 8 "
        "--gpu-memory-utilization 0.9 --host 127.0.0.1 --port 8000\n"
    )
    assert f"--upstream-model world-rag --upstream-key-env VLLM_API_KEY --files {export}" in result.stderr


def test_adapters_on_their_base(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "export" / "world" / "styles"
    for name in ("socratic", "plain"):
        adapter(folder / "adapter" / name)
    words = run(tmp_path, "world/styles", "--base", str(export)).stdout.split()
    assert words[words.index("--max-lora-rank") + 1] == "16"
    assert words[words.index("--lora-modules") + 1 :] == [
        f"world-styles-plain={folder}/adapter/plain",
        f"world-styles-socratic={folder}/adapter/socratic",
    ]
    with pytest.raises(DataError, match="--base"):
        read_served("world/styles", "", Workspace(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"r": 1024}, "rank"),
    ],
)
def test_what_vllm_cannot_serve_is_named(export: Path, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    adapter(tmp_path / "models" / "export" / "world" / "numbers" / "adapter", **changes)
    with pytest.raises(DataError, match=reason):
        read_served("world/numbers", str(export), Workspace(tmp_path, tmp_path))


def test_what_is_no_export(export: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    with pytest.raises(DataError, match="models/export/world/other"):
        read_served("world/other", "", workspace)
    (export / "model.safetensors").unlink()
    with pytest.raises(DataError, match="safetensors"):
        read_served("world/rag", "", workspace)
    (export / "config.json").unlink()
    with pytest.raises(DataError, match="no adapter"):
        read_served("world/rag", "", workspace)


def test_a_context_that_the_model_has_not_got(export: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "world/rag", "--max-model-len", "8192")
    assert isinstance(result.exception, ConfigError) and "4096" in str(result.exception)


def test_run_says_what_is_missing(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "vllm is not installed" in str(run(tmp_path, "world/rag", "--run").exception)
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert "VLLM_API_KEY is not set" in str(run(tmp_path, "world/rag", "--run").exception)


def test_run_becomes_vllm(export: Path, tmp_path: Path) -> None:
    """A program of that name gets the arguments, and the key by its environment alone."""
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$VLLM_API_KEY" "$@"\n')
    program.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.environ.update(PATH=f"{tmp_path}:/bin:/usr/bin", VLLM_API_KEY="the-key")
        os.dup2(os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY), 1)
        vllm_command(lambda: "world", Workspace(tmp_path, tmp_path))("world/rag", run=True)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    key, *arguments = (tmp_path / "out").read_text().split()
    assert (key, arguments[:2]) == ("the-key", ["serve", str(export)])
    assert "the-key" not in arguments
