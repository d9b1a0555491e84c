"""The model in this process: a random Llama, whose words mean nothing, and the tiny base where it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.engine import Engine
from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.schema import Model
from stages.core.workspace import ROOT, Workspace
from stages.generate_sft import Config, run
from stages.generation.decoding import generate
from stages.knowledge.records import Chunk
from stages.synthetic.local_model import LocalModel
from stages.synthetic.local_writer import load_writer
from stages.synthetic.plan import Task
from stages.synthetic.requests import Request
from stages.synthetic.sampling import sample
from stages.synthetic.settings import Local, Provider, Style
from stages.synthetic.writers import write

MODEL = Model(name="random", kind="build", max_context_tokens=512)
SETTINGS = Local(temperature=1.0, max_tokens=12, batch_size=3)


def local(workspace: Workspace, config: Config, **changes: Any) -> LocalModel:
    return LocalModel(MODEL, config.prompt, replace(SETTINGS, **changes), 13, workspace)


def tasks(chunks: Sequence[Chunk], style: str = "factual", count: int = 2) -> list[Task]:
    return [Task(chunk, style, count) for chunk in chunks]


def texts(drafts: Any) -> list[tuple[str, str]]:
    return [(draft.question, draft.answer) for draft in drafts]


@pytest.mark.slow
def test_a_prompt_is_continued_alike_in_any_batch(random_base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(random_base).eval()
    tokenizer = AutoTokenizer.from_pretrained(random_base)
    prompts = [tokenizer(text)["input_ids"] for text in ("Who founded", "A mill in the valley", "x", "Bako is")]
    together = sample(model, tokenizer, prompts, [1, 2, 3, 4], 0.8, 16)
    alone = [sample(model, tokenizer, [prompt], [n], 0.8, 16)[0] for n, prompt in enumerate(prompts, start=1)]
    assert [written.text for written in together] == [written.text for written in alone]
    assert sample(model, tokenizer, prompts, [5, 6, 7, 8], 0.8, 16) != together
    greedy = [written.text for written in sample(model, tokenizer, prompts, [1, 2, 3, 4], 0.0, 16)]
    assert greedy == generate(model, tokenizer, prompts, 16, 2)


@pytest.mark.slow
def test_gumbel_noise_draws_by_probability() -> None:
    import torch

    from stages.synthetic.sampling import _GumbelNoise

    logits = torch.tensor([0.0, 1.0, -1.0]).repeat(4000, 1)
    drawn = _GumbelNoise(range(4000), 0.7)(None, logits).argmax(-1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, torch.softmax(logits[0] / 0.7, -1), atol=0.025)


@pytest.mark.slow
def test_chats_are_continued_once_and_alike_in_every_style(
    random_base: Path, config: Config, workspace: Workspace, chunks: Callable[[int], list[Chunk]]
) -> None:
    styles = {
        "plain": Style("x", frame_answer="{answer}"),
        "framed": Style("x", "pair", "Q: {question}", "A: {answer}"),
    }
    asked = [*tasks(chunks(4), "plain"), *tasks(chunks(4), "framed")]
    drafts, usage = local(workspace, config).continue_chats(asked, styles)
    assert len(drafts) == 16
    assert len(usage) == 8
    assert texts(drafts[:8]) == texts(drafts[8:])
    assert len(set(texts(drafts))) == 8
    ended = next((draft for draft in drafts[8:] if not draft.reason), None)
    assert ended is None or ended.final == (f"Q: {ended.question}", f"A: {ended.answer}")

    journal = workspace.cache("requests") / "local-random.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:9])  # as after a kill
    again, _ = local(workspace, config).continue_chats(asked, styles)
    assert again == drafts
    (random_base / "model.safetensors").unlink()  # nothing is asked, so nothing is loaded
    assert local(workspace, config).continue_chats(asked, styles)[0] == drafts


@pytest.mark.slow
def test_a_chunk_too_long_for_the_context_is_a_rejection(
    random_base: Path, config: Config, workspace: Workspace, chunks: Callable[[int], list[Chunk]]
) -> None:
    short, long = chunks(2)
    drafts, _ = local(workspace, config).continue_chats(tasks([short, replace(long, text="a " * 300)]), {})
    assert [draft.reason == "request_failed" for draft in drafts] == [False, False, True, True]
    request = Request([{"role": "user", "content": "b" * 600}], {})
    (reply,) = local(workspace, config).answer([request])
    assert "leave no room" in reply.error


@pytest.mark.slow
def test_instructions_are_answered_from_the_journal_too(
    random_base: Path, config: Config, workspace: Workspace
) -> None:
    requests = [Request([{"role": "user", "content": text}], {}) for text in ("One?", "Two?", "One?", "Three?")]
    replies = local(workspace, config).answer(requests)
    assert replies[0] == replies[2]
    assert all(reply.num_prompt_tokens and reply.finish_reason in ("stop", "length") for reply in replies)
    (random_base / "model.safetensors").unlink()
    assert local(workspace, config).answer(requests) == replies


@pytest.mark.slow
@pytest.mark.parametrize("method", ["instruct", "continue_chat"])
def test_two_workers_on_ray_write_what_is_written_here(
    random_base: Path,
    config: Config,
    workspace: Workspace,
    chunks: Callable[[int], list[Chunk]],
    ray_here: Engine,
    method: str,
) -> None:
    asked = tasks(chunks(10))
    settings = replace(
        config, model=MODEL, provider=Provider(kind="local"), local=SETTINGS, method=method, pairs_per_chunk=2
    )
    here = write(settings, asked, workspace)
    journal = workspace.cache("requests") / "local-random.jsonl"
    lines = sorted(journal.read_bytes().splitlines(keepends=True))
    journal.unlink()
    on_ray = replace(settings, engine=ray_here)
    assert write(on_ray, asked, workspace) == here
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == lines

    journal.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:9])  # as after a kill
    assert write(on_ray, asked, workspace) == here
    (random_base / "model.safetensors").unlink()  # all is there: neither engine asks
    assert write(on_ray, asked, workspace) == write(settings, asked, workspace) == here


def test_another_base_than_the_stage_has_seen_is_refused(
    random_base: Path, config: Config, workspace: Workspace
) -> None:
    with pytest.raises(DataError, match="a worker's node has another base model"):
        load_writer("instruct", MODEL, config.prompt, SETTINGS, workspace, "another")


@pytest.mark.slow
def test_the_tiny_base_writes_right_pairs(
    config: Config, workspace: Workspace, knowledge: Callable[[int], None]
) -> None:
    """On documents in its own manner: most pairs pass, and what passes is right."""
    from random import Random

    from stages.knowledge.knowledge_base import write_knowledge
    from stages.knowledge.world import ATTRIBUTES, KINDS, invent_entity, restated_fact

    base = ROOT / "models" / "base" / "tiny"
    if not (base / "manifest.json").exists():
        pytest.skip("the tiny base is not built: dvc repro base_model")
    workspace.write("models/base/x").parent.joinpath("tiny").symlink_to(base)
    random = Random(5)
    entities = [invent_entity(random, KINDS, random.sample(ATTRIBUTES, 3), True) for _ in range(24)]
    told = [
        f"There is {e.kind_with_article} called {e.name}. " + " ".join(restated_fact(e, a) for a in e.facts)
        for e in entities
    ]
    rows = [Chunk(f"book-{n:04d}", "book", "world", "", n, text) for n, text in enumerate(told, start=1)]
    write_knowledge(workspace.write("data/mills/knowledge.sqlite"), [], rows)
    run(
        replace(
            config,
            provider=replace(config.provider, kind="local"),
            method="continue_chat",
            local=Local(temperature=0.5, max_tokens=48, batch_size=32),
            filters=replace(config.filters, min_confidence=0.98),
            pairs_per_chunk=2,
        ),
        workspace,
    )
    pairs = read_jsonl(workspace.outputs / "data/mills/sft/pairs.jsonl")
    facts = {restated_fact(e, a) for e in entities for a in e.facts}
    assert len(pairs) >= 24
    assert sum(pair["answer"] in facts for pair in pairs) / len(pairs) >= 0.9
    assert {pair["model"] for pair in pairs} == {"tiny"}
