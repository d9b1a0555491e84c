"""The stage over 24 questions about 8 mills, an index in two dimensions, and a tokenizer of single bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import PROMPT, byte_tokenizer, write_base_manifest

from stages import build_rag_data
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.schema import Model, Retrieval
from stages.core.workspace import Workspace
from stages.generation.loading import load_tokenizer
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import QA, Chunk, Example, IndexRecord
from stages.prompts.renderer import Renderer
from stages.retrieval.index import Index

CONFIG = build_rag_data.Config(
    domain="d",
    seed=13,
    model=Model(name="m", kind="build", max_context_tokens=4096),
    prompt=PROMPT,
    retrieval=Retrieval(store="faiss"),
    kinds=["book", "article", "interview"],
    top_k=1,
    max_distance=0.1,
    num_following=1,
    num_distractors=0,
    without_gold_share=0.0,
    abstain=False,
    split=build_rag_data.Split(0.5, 0.25, 0.25),
    max_length=2000,
    leak_similarity=0.8,
    max_rejected_share=0.5,
)
NAMES = ["Bako", "Tir", "Lona", "Wungu", "Kirru", "Dudun", "Menar", "Vupun"]
ATTRIBUTES = ["founder", "keeper", "owner"]


def clean_rows() -> list[QA]:
    rows = []
    for n, name in enumerate(NAMES):
        for m, attribute in enumerate(ATTRIBUTES):
            row_id = f"qa-{3 * n + m + 1:04d}"
            answer = f"It is said that the {attribute} of {name} was {name}{m}."
            evidence = [f"book-{2 * n + 1:04d}"]
            rows.append(QA(row_id, "qa", f"Who is the {attribute} of {name}?", answer, name, evidence, row_id))
    boundary = [
        QA(f"boundary-{n:04d}", "boundary", f"Can you cook {n}?", f"Of cooking {n} we know nothing at all here.")
        for n in range(1, 9)
    ]
    interview = QA("interview-0001", "interview", "And Bako?", "I have been to Bako, long ago.", "Bako")
    return [*rows, *boundary, interview]


def chunk_rows() -> list[Chunk]:
    first = [
        Chunk(f"book-{2 * n + 1:04d}", "book", "b", f"{n}", 2 * n + 1, f"A mill is {name}. Old.")
        for n, name in enumerate(NAMES)
    ]
    second = [
        Chunk(f"book-{2 * n + 2:04d}", "book", "b", f"{n}", 2 * n + 2, f"It has {name} wheels.")
        for n, name in enumerate(NAMES)
    ]
    return [*first, *second]


def unit(number: int) -> np.ndarray:
    """Names are 40 degrees apart, so that each is nearest to itself and nothing else is near."""
    return np.array([np.cos(np.radians(40 * number)), np.sin(np.radians(40 * number))], dtype=np.float32)


def write_material(folder: Path, clean: list[QA], chunks: list[Chunk]) -> None:
    write_jsonl(folder / "data/d/clean/qa.jsonl", (row.to_row() for row in clean))
    write_jsonl(folder / "data/d/sft/qa.jsonl", [])
    write_knowledge(folder / "data/d/knowledge.sqlite", [], chunks)
    asked = [row for row in clean if row.kind != "boundary"]
    records = [IndexRecord(r.id, r.kind, r.id, "", 0, [r.question], r.answer) for r in asked]
    records += [IndexRecord(c.id, c.kind, c.document, c.section, c.number, ["?"], c.text) for c in chunks]
    queries = np.stack([unit(NAMES.index(row.source_document)) for row in asked])
    # chunks that follow stand opposite: only following the hit finds them
    places = np.array(
        [unit(int(c.section)) if c.number % 2 else -unit(int(c.section)) for c in chunks], dtype=np.float32
    ).reshape(-1, 2)
    vectors = np.concatenate([queries, places])
    index = Index(records, vectors, np.arange(len(records), dtype=np.int32), queries, {})
    (folder / "data/d/index").mkdir(parents=True, exist_ok=True)
    index.write(folder / "data/d/index", {})


def write_base(folder: Path) -> None:
    byte_tokenizer().save_pretrained(folder / "models/base/m")
    write_base_manifest(folder / "models/base/m")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@pytest.fixture
def workspace(base: Path, tmp_path: Path) -> Workspace:
    write_material(tmp_path, clean_rows(), chunk_rows())
    return Workspace(inputs=base, outputs=tmp_path)


def examples(workspace: Workspace) -> dict[str, list[Example]]:
    folder = workspace.outputs / "data/d/rag"
    return {
        n: [Example.from_row(r) for r in read_jsonl(folder / f"{n}.jsonl")] for n in ("train", "validation", "test")
    }


def every(workspace: Workspace) -> dict[str, Example]:
    return {example.id: example for part in examples(workspace).values() for example in part}


def test_examples(workspace: Workspace) -> None:
    metrics = build_rag_data.run(CONFIG, workspace)
    found = every(workspace)
    assert len(found) == 32
    assert found["qa-0002"] == Example(
        id="qa-0002",
        kind="qa",
        question="Who is the keeper of Bako?",
        answer="It is said that the keeper of Bako was Bako1.",
        documents=["A mill is Bako. Old.\nIt has Bako wheels."],
        document_ids=["book-0001", "book-0002"],
        documents_kind="retrieved",
        group="qa-0001",
        source_document="Bako",
        evidence=["book-0001"],
    )
    assert found["boundary-0003"].documents == []
    assert found["boundary-0003"].documents_kind == "none"
    assert "interview-0001" not in found
    assert metrics["num_leaks"] == 0
    assert metrics["num_read"] == metrics["num_kept"] == 32
    assert sum(part["num_rows"] for part in metrics["splits"].values()) == 32
    assert metrics["splits"]["train"]["share_with_documents"] == 1
    assert metrics["splits"]["train"]["share_with_evidence"] == 1


def test_splits_are_frozen_and_whole(workspace: Workspace) -> None:
    metrics = build_rag_data.run(CONFIG, workspace)
    frozen = json.loads((workspace.outputs / "data/d/rag/splits.json").read_text())
    assert frozen["sha256"] == metrics["splits_sha256"]
    parts = {example.id: name for name, part in examples(workspace).items() for example in part}
    assert frozen["splits"] == parts
    by_group: dict[str, set[str]] = {}
    for row_id, group in frozen["groups"].items():
        by_group.setdefault(group, set()).add(parts[row_id])
    assert len(by_group) == 16
    assert all(len(splits) == 1 for splits in by_group.values())


def test_rerun_is_byte_identical(workspace: Workspace) -> None:
    config = replace(CONFIG, num_distractors=1, without_gold_share=0.3, abstain=True)
    outputs = []
    for _ in range(2):
        build_rag_data.run(config, workspace)
        outputs.append({p.name: p.read_bytes() for p in (workspace.outputs / "data/d/rag").iterdir()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"train.jsonl", "validation.jsonl", "test.jsonl", "splits.json", "rejected.jsonl"}


def test_prompts_are_those_of_inference(workspace: Workspace, base: Path) -> None:
    metrics = build_rag_data.run(CONFIG, workspace)
    renderer = Renderer(PROMPT, load_tokenizer(base / "models/base/m"))
    assert metrics["template_hash"] == renderer.hash
    lengths = []
    for example in every(workspace).values():
        tokenised = renderer.tokenise(example.question, example.documents, example.answer)
        asked = renderer.prompt_ids(renderer.messages(example.question, example.documents))
        assert tokenised.input_ids[: -tokenised.num_completion_tokens] == asked
        lengths.append(len(tokenised.input_ids))
    assert metrics["tokens"]["p100"] == max(lengths) < CONFIG.max_length


def test_an_answer_that_quotes_a_chunk_is_trained_on_without_it(workspace: Workspace) -> None:
    build_rag_data.run(CONFIG, workspace)
    held_out = examples(workspace)["test"][0]
    assert held_out.kind == "qa"
    quoted = f"The story is that long ago the mill was given to {held_out.source_document} by the old miller."
    clean = [replace(row, answer=quoted) if row.id == held_out.id else row for row in clean_rows()]
    chunk_id = held_out.evidence[0]
    chunks = [replace(c, text=f"Hear! {quoted} So.") if c.id == chunk_id else c for c in chunk_rows()]
    write_material(workspace.outputs, clean, chunks)
    metrics = build_rag_data.run(CONFIG, workspace)
    parts = examples(workspace)
    same_source = [e for e in parts["train"] if e.source_document == held_out.source_document]
    assert len(same_source) == 3  # the whole group
    assert [chunk_id in e.document_ids for e in same_source].count(False) == 1
    assert metrics["num_quoting_rows"] == metrics["num_quoting_chunks_passed_over"] == 1
    assert metrics["num_pinned_to_train"] == 3


def test_distractors_and_withheld_documents(workspace: Workspace) -> None:
    build_rag_data.run(replace(CONFIG, num_distractors=1, without_gold_share=0.5, abstain=True), workspace)
    parts = examples(workspace)
    assert {e.documents_kind for e in parts["test"] if e.kind == "qa"} == {"retrieved"}
    trained = [e for name in ("train", "validation") for e in parts[name] if e.kind == "qa"]
    assert {e.documents_kind for e in trained} == {"distracted", "without_gold"}
    for example in trained:
        withheld = example.documents_kind == "without_gold"
        assert example.abstains == withheld
        assert (example.answer == PROMPT.abstain) == withheld
        assert len(example.documents) == 2
        assert (example.evidence[0] in example.document_ids) != withheld


def test_documents_are_shortened_but_never_the_answer(workspace: Workspace) -> None:
    build_rag_data.run(CONFIG, workspace)
    whole = every(workspace)
    metrics = build_rag_data.run(CONFIG, workspace)
    assert (metrics["num_shortened"], metrics["num_documents_dropped"]) == (0, 0)
    longest = metrics["tokens"]["p100"]
    metrics = build_rag_data.run(replace(CONFIG, max_length=longest - 20), workspace)
    short = every(workspace)
    assert (metrics["num_shortened"], metrics["num_documents_dropped"]) == (24, 0)
    assert all(short[i].answer == whole[i].answer for i in whole)
    assert short["qa-0002"].documents == ["A mill is Bako. Old."]
    assert short["qa-0002"].document_ids == ["book-0001"]
    metrics = build_rag_data.run(replace(CONFIG, max_length=longest - 60), workspace)
    assert (metrics["num_shortened"], metrics["num_documents_dropped"]) == (24, 24)
    assert every(workspace)["qa-0002"] == replace(
        whole["qa-0002"], documents=[], document_ids=[], documents_kind="none"
    )


def test_too_long_answers_are_rejected_and_all_of_them_is_an_error(workspace: Workspace) -> None:
    clean = clean_rows()
    clean[1] = replace(clean[1], answer="word " * 500)
    write_material(workspace.outputs, clean, chunk_rows())
    metrics = build_rag_data.run(CONFIG, workspace)
    assert metrics["rejected"] == {"too_long": 1}
    (rejected,) = read_jsonl(workspace.outputs / "data/d/rag/rejected.jsonl")
    assert (rejected["origin"], rejected["reason"]) == ("qa-0002", "too_long")
    with pytest.raises(DataError, match="no record was kept of 32 read"):
        build_rag_data.run(replace(CONFIG, max_length=20), workspace)


def test_a_leak_fails_the_stage_and_names_the_row(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    build_rag_data.run(CONFIG, workspace)
    held_out = examples(workspace)["test"][0]
    chunks = chunk_rows()
    chunks[-1] = replace(chunks[-1], text=held_out.answer)
    write_material(workspace.outputs, clean_rows(), chunks)
    monkeypatch.setattr(build_rag_data, "quoted_chunks", lambda *_: {})  # the rule that prevents it
    with pytest.raises(DataError, match=rf"(?s)leaks.*{held_out.id}: 100% of its answer stands in"):
        build_rag_data.run(CONFIG, workspace)


def test_errors(workspace: Workspace) -> None:
    write = partial(write_material, workspace.outputs)
    with pytest.raises(DataError, match="no row fell into test"):
        build_rag_data.run(replace(CONFIG, split=build_rag_data.Split(0.5, 0.499999, 0.000001)), workspace)
    write(clean_rows(), [])
    with pytest.raises(DataError, match="no documents at all: the index holds no book, article"):
        build_rag_data.run(replace(CONFIG, kinds=["book", "article"]), workspace)
    write([row for row in clean_rows() if row.id != "qa-0005"], chunk_rows())
    write_jsonl(workspace.outputs / "data/d/clean/qa.jsonl", (row.to_row() for row in clean_rows()))
    with pytest.raises(DataError, match=r"1 questions are not in the index \(qa-0005"):
        build_rag_data.run(CONFIG, workspace)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["book", "qa"]}, "never from qa"),
        ({"max_length": 5000}, "m reads at most 4096 tokens"),
        ({"split": {"train": 0.5, "validation": 0.1, "test": 0.1}}, "sum to 1"),
        ({"leak_similarity": 0.0}, "leak_similarity"),
        ({"top_q": 1}, r"build_rag_data\.top_q: unknown key"),
    ],
)
def test_config_refuses_by_key(change: dict[str, Any], message: str) -> None:
    section = {**vars(CONFIG), "split": vars(CONFIG.split), "model": vars(CONFIG.model), "prompt": vars(PROMPT)}
    section["retrieval"] = vars(CONFIG.retrieval)
    assert parse_section(build_rag_data.Config, section, "build_rag_data") == CONFIG
    with pytest.raises(ConfigError, match=message):
        parse_section(build_rag_data.Config, {**section, **change}, "build_rag_data")


@pytest.mark.parametrize("key, value", [("top_k", 0), ("num_following", -1), ("num_distractors", -1)])
def test_counts_that_cannot_be_are_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=key):
        replace(CONFIG, **{key: value})  # type: ignore[arg-type]
