"""The RAG-context adapter: learns to answer from the documents in the system prompt; loss on the answers only.

reads   models/<domain>/book_merged/; data/<domain>/rag/{train,validation}.jsonl
writes  models/<domain>/rag_lora/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_rag_lora/{metrics.json,curve.csv}

    python -m stages.train_rag_lora
    python -m stages.train_rag_lora -m train_rag_lora.lora.r=4,8,16

adapter.json carries the hash of the prompt it was trained with: loading it for another prompt is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core import schema
from stages.core.jsonl import read_jsonl
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer
from stages.training.lora import weights_sha256
from stages.training.objective import TokenRow
from stages.training.results import Origin, write_results
from stages.training.sft import set_threads, train_lora


@dataclass
class Config:
    """What to train on the RAG-context examples, and how."""

    domain: str = MISSING
    model: schema.Model = MISSING
    prompt: schema.Prompt = MISSING
    seed: int = MISSING
    lora: schema.Lora = MISSING
    training: schema.Training = MISSING


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, writes; returns the metrics."""
    files = [workspace.read(f"data/{config.domain}/rag/{name}.jsonl") for name in ("train", "validation")]
    base = workspace.read(f"models/{config.domain}/book_merged")
    tokenizer = load_tokenizer(base)
    renderer = Renderer(config.prompt, tokenizer)
    rows, eval_rows = (_rows(renderer, file) for file in files)
    set_threads(config.training.num_threads)
    origin = Origin(config.model, weights_sha256(base), renderer.hash, files, config.lora, config.training, config.seed)
    with train_lora(
        load_model(base, config.model),
        tokenizer,
        rows,
        eval_rows,
        config.lora,
        config.training,
        seed=config.seed,
        base_sha256=origin.base_sha256,
        checkpoint_root=workspace.cache("checkpoints", "train_rag_lora", config.domain),
    ) as trained:
        metrics = {"num_train_rows": len(rows), "num_eval_rows": len(eval_rows)}
        report = f"reports/{config.domain}/train_rag_lora"
        write_results(workspace, trained, origin, f"models/{config.domain}/rag_lora", report, metrics)
    return {**trained.figures, **metrics}


def _rows(renderer: Renderer, file: Path) -> list[TokenRow]:
    """Prompt and answer of each example as token ids, the very ones that inference starts from."""
    rows = []
    for example in map(Example.from_row, read_jsonl(file)):
        tokenised = renderer.tokenise(example.question, example.documents, example.answer)
        rows.append(TokenRow(example.id, tokenised.input_ids, tokenised.num_completion_tokens))
    return rows


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
