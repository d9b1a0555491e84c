"""Continued pre-training: a LoRA adapter on the MLP modules learns the domain's book; its last sections are held out.

reads   models/base/<model>/manifest.json and the weights it names; data/<domain>/knowledge.sqlite
writes  models/<domain>/book_lora/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_book_lora/{metrics.json,curve.csv}

    python -m stages.train_book_lora
    python -m stages.train_book_lora -m train_book_lora.lora.r=8,32

Every token is trained, in windows over the book as connected text. metrics.json has perplexity and bits per byte,
before and after, on the held-out sections and on text that has nothing to do with the book (what was forgotten).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from stages.core import launch, schema
from stages.core.errors import DataError
from stages.core.launch import Launch
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import bits_per_byte, perplexity, perplexity_of, unrelated_texts
from stages.knowledge.book import section_texts, split_book
from stages.knowledge.knowledge_base import read_chunks
from stages.knowledge.records import Chunk
from stages.training.lora import weights_sha256
from stages.training.objective import TokenRow
from stages.training.plain_text import packed_rows
from stages.training.results import Origin, write_results
from stages.training.sft import set_threads, train_lora


@dataclass
class Config:
    """What to train on the book, and how."""

    domain: str = MISSING
    model: schema.Model = MISSING
    seed: int = MISSING
    held_out_share: float = MISSING
    lora: schema.Lora = MISSING
    training: schema.Training = MISSING
    launch: Launch = field(default_factory=Launch)

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ValueError("held_out_share must be above 0 and below 1: the held-out part decides when to stop")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, measures, writes; returns the metrics."""
    launch.train("train_book_lora", config, workspace)
    knowledge = workspace.read(f"data/{config.domain}/knowledge.sqlite")
    base = resolve_base(workspace, config.model)
    tokenizer = load_tokenizer(base)
    texts, rows, eval_rows = _prepare(config, tokenizer, read_chunks(knowledge))
    set_threads(config.training.num_threads)
    model = load_model(base, config.model)
    origin = Origin(config.model, weights_sha256(base), "", [knowledge], config.lora, config.training, config.seed)
    with train_lora(
        model,
        tokenizer,
        rows,
        eval_rows,
        config.lora,
        config.training,
        seed=config.seed,
        base_sha256=origin.base_sha256,
        checkpoint_root=workspace.cache("checkpoints", "train_book_lora", config.domain),
        launched=config.launch,
    ) as trained:
        after = _measure(config, trained.model, tokenizer, texts)
        with trained.model.disable_adapter():
            before = _measure(config, trained.model, tokenizer, texts)
        metrics = {"before": before, "after": after, "num_train_rows": len(rows), "num_eval_rows": len(eval_rows)}
        report = f"reports/{config.domain}/train_book_lora"
        write_results(workspace, trained, origin, f"models/{config.domain}/book_lora", report, metrics)
    return {**trained.figures, **metrics}


def _prepare(
    config: Config, tokenizer: Any, chunks: list[Chunk]
) -> tuple[dict[str, list[str]], list[TokenRow], list[TokenRow]]:
    """The texts to measure on, the rows to train on, and the rows to evaluate on."""
    train, held_out = split_book(chunks, config.held_out_share)
    if not held_out:
        raise DataError(f"held_out_share {config.held_out_share} holds nothing of the book out; raise it")
    texts = {"book_heldout": section_texts(held_out), "unrelated": unrelated_texts()}
    max_length = config.training.max_length
    rows = packed_rows(tokenizer, section_texts(train), max_length, "book")
    return texts, rows, packed_rows(tokenizer, texts["book_heldout"], max_length, "held-out")


def _measure(config: Config, model: Any, tokenizer: Any, texts: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    measured: dict[str, dict[str, float]] = {}
    for name, those in texts.items():
        scores = perplexity(model, tokenizer, those, config.training.max_length, config.training.batch_size)
        measured[name] = {"perplexity": perplexity_of(scores), "bits_per_byte": bits_per_byte(scores)}
    return measured


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
