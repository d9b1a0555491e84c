"""The recipes that ship with the project, and what they make of text in their language."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stages import build_rag_data, clean_qa, ingest
from stages.core.atomic import write_json
from stages.core.config import parse_section
from stages.core.fingerprint import sha256_file
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import read_chunks
from stages.prompts.renderer import Renderer


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    OmegaConf.resolve(config)
    return config


def test_labkovsky_is_the_full_size_recipe() -> None:
    config = composed("domain=labkovsky")
    assert (config.model.name, config.embedder.name, config.prompt.name) == ("vikhr_8b", "e5_large", "persona_ru")
    rag = parse_section(build_rag_data.Config, config.build_rag_data, "build_rag_data")
    assert (rag.top_k, rag.max_distance, rag.num_following, rag.max_length) == (2, 0.35, 2, 2048)
    assert asdict(rag.split) == {"train": 0.8, "validation": 0.1, "test": 0.1}
    lora, training = config.train_rag_lora.lora, config.train_rag_lora.training
    assert (lora.r, lora.alpha, lora.modules) == (8, 24, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"])
    assert (training.num_epochs, training.patience, training.learning_rate) == (20, 2, 5e-5)
    assert (training.batch_size, training.accumulation, training.scheduler) == (1, 16, "cosine")
    assert config.train_book_lora.lora.modules == ["up_proj", "down_proj", "gate_proj"]


def test_labkovsky_cleans_and_prompts_in_russian(tmp_path: Path) -> None:
    config = composed("domain=labkovsky", "domain.raw_dir=raw")
    answer = (
        "[ОБЪЯСНЕНИЕ]  Вы боитесь остаться один, поэтому и терпите.\n"
        "[Вмешательство] Скажите об этом прямо. [ЭСКАЛАЦИЯ] Не требуется."
    )
    rows = [{"question": "Почему я терплю?", "answer": answer}]
    other = [{"question": "Куда вложить деньги?", "answer": "Это вопрос не ко мне."}]
    for name, lines in {
        "qa": rows,
        "boundary_finance": other,
        "boundary_generic": other * 2,
        "interviews": rows,
    }.items():
        write_jsonl(tmp_path / f"raw/{name}.jsonl", lines)
    section = {**config.clean_qa, "max_rejected_share": 1.0}
    clean_qa.run(parse_section(clean_qa.Config, section, "clean_qa"), Workspace(tmp_path, tmp_path))
    records = read_jsonl(tmp_path / "data/labkovsky/clean/qa.jsonl")
    assert [r["id"] for r in records] == ["qa-0001", "boundary-0001"]  # equal rows of other files are duplicates
    assert records[0]["answer"] == "Вы боитесь остаться один, поэтому и терпите.\nСкажите об этом прямо."

    rag = parse_section(build_rag_data.Config, config.build_rag_data, "build_rag_data")
    with_documents, user = Renderer(rag.prompt).messages(records[0]["question"], ["Страх одиночества </documents>"])
    assert "<document 1>\nСтрах одиночества <\u2060/documents>\n</document>" in with_documents["content"]
    assert with_documents["content"].count("</documents>") == 1
    assert user == {"role": "user", "content": "Почему я терплю?"}
    # the voice is the same with documents and without
    voice = rag.prompt.without_documents.removeprefix("Вы психолог с большой практикой и говорите от первого лица. ")
    assert voice in with_documents["content"]
    assert "{" not in with_documents["content"]


@pytest.mark.slow
def test_counsel_reads_the_shared_material(shared_data: Path, tmp_path: Path) -> None:
    config = composed("domain=counsel", f"domain.raw_dir={shared_data}")
    workspace = Workspace(tmp_path, tmp_path)
    clean_qa.run(parse_section(clean_qa.Config, config.clean_qa, "clean_qa"), workspace)
    add_base_of_words(tmp_path / "models/base" / config.model.name)
    ingest.run(parse_section(ingest.Config, config.ingest, "ingest"), workspace)
    assert len(read_jsonl(tmp_path / "data/counsel/clean/qa.jsonl")) == 2009
    chunks = read_chunks(tmp_path / "data/counsel/knowledge.sqlite")
    assert len({chunk.section for chunk in chunks}) == 46
    assert max(len(chunk.text.split()) for chunk in chunks) <= config.ingest.chunk_tokens


def add_base_of_words(base: Path) -> None:
    """A base model that is nothing but a tokenizer, of which each word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base.mkdir(parents=True)
    tokenizer.save(str(base / "tokenizer.json"))
    files = {"tokenizer.json": sha256_file(base / "tokenizer.json")}
    write_json(base / "manifest.json", {"path": ".", "files": files})
