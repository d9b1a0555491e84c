"""Servers as processes: the memory of the one that listens, our own one that does not start, and a real one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from stages.benchmarking.measuring import measure
from stages.benchmarking.own_server import own_server
from stages.benchmarking.server_memory import ServerMemory, process_at
from stages.benchmarking.settings import Config, Endpoint
from stages.core.errors import DataError
from stages.core.workspace import Workspace


def test_the_process_that_listens_is_found_on_this_machine_only(server: Any) -> None:
    assert process_at(server.url).pid == os.getpid()
    assert process_at(f"http://127.0.0.1:{free_port()}/v1") is None
    assert process_at("http://example.org/v1") is None


def test_the_peak_is_seen_while_it_lasts(server: Any) -> None:
    memory = ServerMemory()
    with memory.watch(server.url) as before:
        time.sleep(0.1)
    with memory.watch(server.url) as during:
        block = bytearray(os.urandom(1)) * (64 << 20)
        time.sleep(0.2)
        del block
    assert during.peak_bytes - before.peak_bytes > 32 << 20
    with memory.watch("http://example.org/v1") as elsewhere:
        pass
    assert elsewhere.peak_bytes == 0


def test_our_server_that_does_not_start_says_why(workspace: Workspace) -> None:
    (workspace.inputs / "stages").mkdir()  # stands before the real package: there is no stages.cli
    (workspace.inputs / "stages" / "__init__.py").write_text("raise SystemExit('error: no model to serve')")
    with (
        pytest.raises(DataError, match=r"ended at its start:\n(.|\n)*no model to serve"),
        own_server(workspace),
    ):
        pass


def test_our_server_is_stopped_whatever_happens(workspace: Workspace) -> None:
    (workspace.inputs / "stages").mkdir()
    (workspace.inputs / "stages" / "__init__.py").write_text("")
    (workspace.inputs / "stages" / "cli.py").write_text(
        "import sys\nfrom http.server import HTTPServer, BaseHTTPRequestHandler as B\n"
        "class H(B):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), H).serve_forever()\n"
    )
    urls = []
    with pytest.raises(KeyError), own_server(workspace) as url:
        urls.append(url)
        assert process_at(url) is not None
        raise KeyError
    assert process_at(urls[0]) is None


@pytest.fixture
def real_server(
    tmp_path: Path, transformers_serve: Callable[[Path], tuple[str, subprocess.Popen[bytes]]]
) -> tuple[str, str]:
    """`transformers serve` with a random Llama over characters: (base URL, the model's name)."""
    folder = tmp_path / "model"
    _save_random_model(folder)
    return transformers_serve(folder)[0], str(folder)


def _save_random_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95, "<|end|>": 96}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=97, max_position_embeddings=4096, eos_token_id=96, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.mark.slow
def test_a_real_server_is_measured_from_end_to_end(
    config: Config, workspace: Workspace, real_server: tuple[str, str]
) -> None:
    url, model = real_server
    names = ["throughput", "context", "writing", "coherence"]
    endpoints = {"real": Endpoint(base_url=url, model=model)}
    context = replace(config.context, min_tokens=400, max_tokens=1000)
    coherence = replace(config.coherence, num_tokens=900)
    config = replace(config, endpoints=endpoints, only=names, timeout_s=60.0, context=context, coherence=coherence)
    found = measure(config, workspace)
    assert list(found.sections) == names and not found.skipped
    can = found.endpoints["real"].can
    assert can.streams and can.counts_tokens and not can.retrieves
    assert can.tokens_per_char == pytest.approx(1.0)  # a token is a character
    assert not any(section.failures.get("real") for section in found.sections.values())
    lengths = found.sections["context"].figures
    assert [rows["real"]["prompt_tokens"].value for rows in lengths.values()] == pytest.approx([400, 957], abs=12)
    assert all(rows["real"]["memory_bytes"].value > 100 << 20 for rows in lengths.values())
    assert all(rows["real"]["tokens_per_s"].value > 0 for rows in found.sections["throughput"].figures.values())
