"""The whole stage on a made-up domain and models with random weights: what comes out, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import PROMPT, byte_tokenizer, save_llama, write_base_manifest

from stages.core.atomic import write_json, write_text
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import write_jsonl
from stages.core.schema import Embedder, Model
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.evaluate import Config, run
from stages.generation.decoding import generate
from stages.generation.loading import write_adapter_note
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk, Example, IndexRecord
from stages.prompts.renderer import Renderer

NAMES = ["Bako", "Mira", "Sul", "Tone", "Veda", "Rilo"]


class WordEncoder:
    """Texts that share words are near each other."""

    fingerprint = "words"

    def encode_queries(self, texts: list[str]) -> Any:
        return self.encode_passages(texts)

    def encode_passages(self, texts: list[str]) -> Any:
        vectors = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, random.Random(word).randrange(64)] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.retrieval.embedding.load_embedder", lambda embedder: WordEncoder())
    for place in ("embedder_files", "index"):
        monkeypatch.setattr(f"stages.retrieval.{place}.embedder_fingerprint", lambda embedder: "words")
    texts = ["Functions are defined with def.", "A class statement makes a class.", "Loops end with break."]
    monkeypatch.setattr("stages.evaluation.inputs.unrelated_texts", lambda: texts)  # short: bytes are many tokens


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with everything that evaluate reads."""
    root = tmp_path_factory.mktemp("repository")
    write_models(root)
    chunks, questions = made_up_domain()
    write_knowledge(root / "data/d/knowledge.sqlite", [], chunks)
    trained = [replace(example, id=f"trained-{example.id}") for example in questions[::2]]
    write_jsonl(root / "data/d/rag/train.jsonl", [e.to_row() for e in trained])
    write_jsonl(root / "data/d/rag/validation.jsonl", [])
    boundary = Example("x", "boundary", "What is love?", "Ask Mira.", [], [], "none", "gx")
    write_jsonl(root / "data/d/rag/test.jsonl", [e.to_row() for e in [*questions, boundary]])
    write_index(root / "data/d/index", chunks, questions)
    for stage in ("ingest", "clean_qa", "generate_sft", "build_index", "build_rag_data"):
        write_json(root / f"reports/d/{stage}/metrics.json", {"num_read": 3, "num_kept": 2, "num_rejected": 1})
    for stage in ("train_book_lora", "train_rag_lora"):
        write_text(root / f"reports/d/{stage}/curve.csv", "step,train_loss,eval_loss\n1,3,3\n2,2,2.5\n")
    return root


def write_models(root: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    tokenizer = byte_tokenizer()
    write_base_manifest(save_llama(root / "models/base/t", tokenizer))
    merged = save_llama(root / "models/d/book_merged", tokenizer, seed=1)
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(merged), lora).save_pretrained(str(root / "models/d/rag_lora"))
    note = {"base_sha256": "", "prompt_hash": Renderer(PROMPT, tokenizer).hash}
    write_adapter_note(root / "models/d/rag_lora", note)


def made_up_domain() -> tuple[list[Chunk], list[Example]]:
    chunks, questions = [], []
    for number, name in enumerate(NAMES):
        text = f"The keeper of {name} is K{number}."
        section = f"chapter {number // 2}"
        chunks.append(Chunk(f"b{number}", "book", "book", section, number, text, [f"Who keeps {name}?"]))
        for copy, words in enumerate(("Name the keeper of {}.", "Who is keeper of {}?")):
            questions.append(
                Example(
                    f"q{number}{copy}", "qa", words.format(name), f"It is K{number}.", [text], [f"b{number}"],
                    "retrieved", f"g{number}", name, [f"b{number}"],
                )
            )  # fmt: skip
    return chunks, questions


def write_index(folder: Path, chunks: list[Chunk], questions: list[Example]) -> None:
    from stages.retrieval.index import Index

    records = [IndexRecord(e.id, "qa", e.id, "", 0, [e.question], e.answer) for e in questions]
    records += [IndexRecord(c.id, c.kind, c.document, c.section, c.number, c.questions, c.text) for c in chunks]
    vectors = WordEncoder().encode_passages([record.questions[0] for record in records])
    entries = np.arange(len(records), dtype=np.int32)
    folder.mkdir(parents=True)
    Index(records, vectors, entries, vectors[: len(questions)], {}).write(
        folder, {"embedder": "words", "embedder_fingerprint": "words", "embed": "questions"}
    )


CONFIG = Config(
    domain="d",
    model=Model(name="t", kind="build", max_context_tokens=512),
    embedder=Embedder(name="words", package="none", dimension=64, max_tokens=64),
    prompt=PROMPT,
    seed=1,
    kinds=["book", "article"],
    held_out_share=0.3,
    max_length=64,
    max_new_tokens=6,
    batch_size=5,
    num_resamples=200,
    num_threads=1,
)


@pytest.fixture(scope="module")
def outputs(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def metrics(made: Path, outputs: Path) -> dict[str, Any]:
    path = outputs / "reports/d/metrics.json"
    if not path.exists():
        run(CONFIG, Workspace(inputs=made, outputs=outputs))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_config_mirrors_its_file() -> None:
    keys = yaml.safe_load((CONF / "evaluate/default.yaml").read_text())
    assert set(keys) == set(Config.__dataclass_fields__)


def test_every_promised_key_is_there(metrics: dict[str, Any]) -> None:
    assert set(metrics["answers"]) == {"base", "base_docs", "book", "book_docs", "tuned", "tuned_docs"}
    assert set(metrics["answers"]["base"]) == {"exact_match", "contains", "token_f1", "loss"}
    assert set(metrics["grounding"]) == {"base", "book", "tuned"}
    assert set(metrics["grounding"]["tuned"]) == {"gold", "gold_distractor", "distractor", "none"}
    assert set(metrics["grounding"]["tuned"]["gold"]) == {"exact_match", "loss"}
    assert set(metrics["retrieval"]) == {"questions", "text", "answers"}
    assert set(metrics["retrieval"]["text"]) == {"recall_at_1", "recall_at_2", "recall_at_5", "mrr", "ndcg_at_10"}
    assert {"tuned_docs_vs_base_docs", "retrieval_questions_vs_text"} <= set(metrics["compare"])
    assert set(metrics["perplexity"]) == {"base", "book"}
    assert set(metrics["perplexity"]["book"]) == {"book_heldout", "unrelated"}
    assert {"floor", "ceiling", "base", "tuned_docs"} <= set(metrics["style"])
    assert set(metrics["memorisation"]) == {"base", "book", "tuned"}
    assert metrics["prompt"]["parity"]["value"] == 1.0


def test_every_number_has_an_interval_and_a_count(metrics: dict[str, Any]) -> None:
    def leaves(tree: dict[str, Any]) -> list[dict[str, Any]]:
        return [tree] if "low" in tree else [leaf for value in tree.values() for leaf in leaves(value)]

    for leaf in leaves({k: v for k, v in metrics.items() if k != "compare"}):
        assert set(leaf) == {"value", "low", "high", "n"}
        if leaf["low"] is not None:
            assert leaf["low"] <= leaf["value"] <= leaf["high"]
    assert metrics["answers"]["tuned_docs"]["loss"]["n"] == 12


def test_the_models_differ_and_the_adapter_is_on_for_tuned_only(metrics: dict[str, Any]) -> None:
    losses = [metrics["answers"][name]["loss"]["value"] for name in ("base", "book", "tuned")]
    assert len(set(losses)) == 3
    gold, none = (metrics["grounding"]["book"][c]["loss"]["value"] for c in ("gold", "none"))
    assert gold != none
    # every document in these prompts is the gold one
    assert metrics["grounding"]["tuned"]["gold"]["loss"] == metrics["answers"]["tuned_docs"]["loss"]
    assert metrics["grounding"]["tuned"]["none"]["loss"] == metrics["answers"]["tuned"]["loss"]


def test_the_book_is_the_merged_model_without_adapter(made: Path, metrics: dict[str, Any]) -> None:
    from stages.generation.decoding import completion_losses
    from stages.generation.loading import load_model, load_tokenizer

    folder = made / "models/d/book_merged"
    renderer = Renderer(PROMPT, load_tokenizer(folder))
    examples = [renderer.tokenise(e.question, e.documents, e.answer) for e in made_up_domain()[1]]
    losses = completion_losses(load_model(folder, CONFIG.model), renderer.tokenizer, examples, 3)
    expected = sum(nll for nll, _ in losses) / sum(n for _, n in losses)
    assert metrics["answers"]["book_docs"]["loss"]["value"] == pytest.approx(expected, abs=1e-4)


def test_report_figures_and_plots_are_written(outputs: Path, metrics: dict[str, Any]) -> None:
    folder = outputs / "reports/d"
    report = (folder / "report.md").read_text()
    for name in ("answers", "grounding", "retrieval", "curves"):
        assert (folder / f"figures/{name}.png").stat().st_size > 5000
        assert f"figures/{name}.png" in report
    lines = (folder / "plots/answers.csv").read_text().splitlines()
    assert lines[0] == "name,metric,value,low,high,n"
    assert len(lines) == 1 + 6 * 4


def test_run_again_everything_is_the_same_to_the_byte(
    made: Path, outputs: Path, metrics: dict[str, Any], tmp_path: Path
) -> None:
    shutil.rmtree(made / ".cache/answers")
    run(CONFIG, Workspace(inputs=made, outputs=tmp_path))
    assert sha256_files(tmp_path / "reports") == sha256_files(outputs / "reports")


def test_answers_of_unchanged_models_are_remembered_and_those_of_a_new_prompt_or_adapter_are_not(
    made: Path, metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(*arguments: Any) -> list[str]:
        asked.append(arguments[-1].partition(":")[0])
        return generate(*arguments)

    monkeypatch.setattr("stages.evaluation.answering.generate", counted)
    assert run(CONFIG, Workspace(inputs=made, outputs=tmp_path)) == metrics
    assert asked == ["tuned"]
    run(replace(CONFIG, max_new_tokens=5), Workspace(inputs=made, outputs=tmp_path))
    assert asked == ["tuned", "base", "book", "tuned"]


def test_a_limit_takes_the_first_questions(made: Path, tmp_path: Path) -> None:
    found = run(replace(CONFIG, limit=3), Workspace(inputs=made, outputs=tmp_path))
    assert found["answers"]["base"]["loss"]["n"] == 3
    assert "floor" not in found["style"]  # two source documents are too few
    assert "too few source documents" in (tmp_path / "reports/d/report.md").read_text()


def test_prompts_that_leave_no_room_for_an_answer_are_not_grounded_on(made: Path, tmp_path: Path) -> None:
    model = replace(CONFIG.model, max_context_tokens=60)
    found = run(replace(CONFIG, model=model), Workspace(inputs=made, outputs=tmp_path))
    assert "grounding" not in found


def test_an_adapter_of_another_prompt_is_refused(made: Path, tmp_path: Path) -> None:
    prompt = replace(PROMPT, without_documents="Answer now.")
    with pytest.raises(DataError, match="trained with prompt"):
        run(replace(CONFIG, prompt=prompt), Workspace(inputs=made, outputs=tmp_path))
    assert not (tmp_path / "reports").exists()


def test_a_missing_model_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="models/base/gone"):
        run(replace(CONFIG, model=replace(CONFIG.model, name="gone")), Workspace(inputs=made, outputs=tmp_path))


def test_a_test_set_of_boundary_examples_only_is_an_error(made: Path, tmp_path: Path) -> None:
    boundary = Example("x", "boundary", "What is love?", "Ask Mira.", [], [], "none", "gx").to_row()
    for name in ("train", "validation", "test"):
        write_jsonl(tmp_path / f"data/d/rag/{name}.jsonl", [boundary])
    with pytest.raises(DataError, match="no question to evaluate"):
        run(CONFIG, Workspace(inputs=made, outputs=tmp_path))


@pytest.mark.parametrize(("key", "value"), [("limit", -1), ("max_new_tokens", 0), ("num_resamples", 10)])
def test_values_out_of_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_section(Config, {**asdict(CONFIG), key: value}, "evaluate")


def test_the_adapters_of_writers_are_left_to_compare() -> None:
    from stages.compose import compose

    guide, me = "guide={data: rag, styles: [socratic]}", "me={data: style/me}"
    composed = compose([f"+train_style.variants.{variant}" for variant in (guide, me)])
    assert parse_section(Config, composed.evaluate, "evaluate").answering_styles == {"guide": ["socratic"]}
