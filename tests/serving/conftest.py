"""A workspace with a random Llama of a few thousand weights, a LoRA on it, and an index of nine records."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alike_task import CALIBRATION, EMBEDDER, KNOWN, TASK, FakePredictor, calibrate
from alike_task import renderer as pair_renderer
from tiny_models import PROMPT, byte_tokenizer, save_llama, write_base_manifest

from stages import build_pair_index
from stages.core.jsonl import write_jsonl
from stages.core.schema import Embedder, Model, Retrieval
from stages.core.workspace import Workspace
from stages.knowledge.records import IndexRecord
from stages.prompts.renderer import Renderer
from stages.serving.answering import Answerer, Config
from stages.serving.finding import DocumentFinder
from stages.serving.predicting import Config as PairConfig

MODEL = Model(name="random", kind="build", max_context_tokens=512)


def chunk(number: int, section: str = "Chapter 1", kind: str = "book") -> IndexRecord:
    """Chunk `number` of the book: its question is about its number."""
    return IndexRecord(f"{kind}-{number}", kind, kind, section, number, [f"About {number}?"], f"Text {number}.")


RECORDS = [
    *(chunk(number, "Chapter 1" if number <= 4 else "Chapter 2") for number in range(1, 7)),
    *(IndexRecord(f"qa-{n}", "qa", f"qa-{n}", "", 0, ["Who asks?"], "Nobody asks.") for n in (1, 2, 3)),
]


class NumberEncoder:
    """Embeds `About N?` as the unit vector N, and everything else as the last one."""

    fingerprint = "numbers"

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        places = [int(text.split()[1].rstrip("?")) if text.startswith("About") else 0 for text in texts]
        return np.eye(8, dtype=np.float32)[places]


class Loaded(DocumentFinder):
    """A finder over RECORDS with the fake encoder."""

    def load(self) -> None:
        from stages.retrieval.index import Index
        from stages.retrieval.search import Searcher

        if self._searcher is None:
            vectors = NumberEncoder().encode_queries([record.questions[0] for record in RECORDS])
            index = Index(RECORDS, vectors, np.arange(len(RECORDS), dtype=np.int32), vectors[:1], {})
            self._searcher = Searcher(index, self.retrieval, self.workspace.cache("stores"))
            self._encoder = NumberEncoder()


def _save_lora(folder: Path, base: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    renderer = Renderer(PROMPT, AutoTokenizer.from_pretrained(base))
    (folder / "adapter.json").write_text(json.dumps({"base_sha256": "", "prompt_hash": renderer.hash}))


@pytest.fixture(scope="session")
def built_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder models/ as the pipeline leaves it; not to be changed."""
    root = tmp_path_factory.mktemp("built")
    base, merged = root / "models" / "base" / "random", root / "models" / "world" / "book_merged"
    tokenizer = byte_tokenizer()
    write_base_manifest(save_llama(base, tokenizer, seed=1))
    save_llama(merged, tokenizer, seed=2)
    _save_lora(root / "models" / "world" / "rag_lora", merged)
    return root


@pytest.fixture
def workspace(built_models: Path, tmp_path: Path) -> Workspace:
    """Own outputs and caches over copies of the built models."""
    shutil.copytree(built_models / "models", tmp_path / "models")
    return Workspace(tmp_path, tmp_path)


@pytest.fixture
def config() -> Config:
    return Config(
        domain="world",
        model=replace(MODEL),
        embedder=Embedder(name="numbers", package="none", dimension=8, max_tokens=8),
        prompt=replace(PROMPT),  # tests change them
        retrieval=Retrieval(store="faiss"),
        kinds=["qa", "book"],
        top_k=2,
        max_distance=0.5,
        num_siblings=1,
        max_new_tokens=8,
    )


@pytest.fixture
def answerer(config: Config, workspace: Workspace) -> Answerer:
    finder = Loaded(workspace, "world", config.embedder, config.retrieval, config.kinds, 2, 0.5, 1)
    return Answerer(config, workspace, finder)


@pytest.fixture
def pair_config() -> PairConfig:
    return PairConfig(
        task=TASK,
        model=MODEL,
        embedder=EMBEDDER,
        batch_size=4,
        kind="hidden_states",
        max_length=64,
        max_prompt_tokens=0,
        max_new_tokens=32,
    )


@pytest.fixture
def alike(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace with the task `alike` as evaluate_regression leaves it."""
    monkeypatch.setattr("stages.regression.predictor.Predictor", FakePredictor)
    for split in ("by_contract", "by_pair"):
        for part in ("train", "validation", "test"):
            path = workspace.outputs / f"data/alike/pairs/{split}/{part}.jsonl"
            write_jsonl(path, (pair.to_row() for pair in KNOWN))
    settings = build_pair_index.Config(task=TASK, model=MODEL, embedder=EMBEDDER, top_k=2, max_length=64)
    build_pair_index.run(settings, workspace)
    for recipe in ("ce", "hybrid"):
        adapter = workspace.outputs / f"models/alike/regression/{recipe}/by_contract/seed-2"
        shutil.copytree(workspace.outputs / "models/world/rag_lora", adapter)
        (adapter / "adapter.json").write_text(json.dumps({"prompt_hash": pair_renderer(workspace).hash}))
    calibrate(workspace, CALIBRATION)
    return workspace
