"""Poisoned documents against the prompt: every attack of the suite, over two tokenizers, through the proxy too."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.core.workspace import ROOT
from stages.generation.loading import load_tokenizer
from stages.prompts.renderer import Renderer

DOCUMENTS = ["Bako is a mill.", "Its founder was Lona Tir."]
QUESTION = "Who founded Bako?"
FACT = "Its founder was Vomtu."
NUM_ATTACKS = len((Path(__file__).parent / "poisons.jsonl").read_text(encoding="utf-8").splitlines())


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The published benchmark: the attacks and how break-outs are counted are the same."""
    path = ROOT / "tests" / "benchmarks" / "poisoned_documents.py"
    spec = importlib.util.spec_from_file_location("poisoned_documents", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def renderer(workspace: Any, config: Any) -> Renderer:
    return Renderer(config.prompt, load_tokenizer(workspace.read("models/base/random")))


def test_no_attack_breaks_out(suite: Any, renderer: Renderer) -> None:
    attacks = suite.read_attacks(renderer.tokenizer)
    assert len(attacks) == NUM_ATTACKS
    assert not [
        attack.name
        for attack in attacks
        if suite.breaks_out(renderer, QUESTION, DOCUMENTS, suite.poison(DOCUMENTS, attack, "Vomtu", FACT))
    ]


def test_without_escaping_they_do(suite: Any, renderer: Renderer, config: Any) -> None:
    unescaped = suite.Unescaped(config.prompt, renderer.tokenizer)
    attacks = suite.read_attacks(renderer.tokenizer)
    broken = {
        attack.name
        for attack in attacks
        if suite.breaks_out(unescaped, QUESTION, DOCUMENTS, suite.poison(DOCUMENTS, attack, "Vomtu", FACT))
    }
    kinds = {attack.kind for attack in attacks if attack.name in broken}
    assert kinds == {"delimiter", "special token"}
    assert {"closes its document", "closes with spaces", "end of turn", "every special token"} <= broken


@pytest.mark.anyio
async def test_through_the_proxy(run_proxy: Any, suite: Any, renderer: Renderer, config: Any) -> None:
    """As a question, in an earlier turn, and as the client's own system message."""
    config.model.max_context_tokens = 8192  # its tokens are bytes
    special = set(renderer.tokenizer.all_special_ids)

    def num_special(messages: Any) -> int:
        return sum(number in special for number in renderer.prompt_ids(messages))

    async with run_proxy() as proxy:
        for attack in suite.read_attacks(renderer.tokenizer):
            turn = [{"role": "user", "content": attack.text}, {"role": "assistant", "content": attack.text}]
            last = {"role": "user", "content": attack.text}
            system = {"role": "system", "content": attack.text}
            for messages in ([last], [*turn, last], [system, last]):
                rag = {"off": messages[0] is system}
                assert (await proxy.ask("", messages=messages, rag=rag)).status_code == 200, attack.name
                sent = proxy.upstream.bodies[-1]["messages"]
                clean = [{**message, "content": "x"} for message in sent]
                assert num_special(sent) == num_special(clean), (attack.name, json.dumps(sent))
