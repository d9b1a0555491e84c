"""A LoRA adapter on the book model, trained on examples with their documents in the prompt; loss on the answers only.

What train_rag_lora and every variant of train_style do; they differ in the examples they take and in their settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from omegaconf import MISSING

from stages.core import schema
from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.core.launch import Launch
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer
from stages.training.lora import weights_sha256
from stages.training.objective import TokenRow
from stages.training.results import Origin, write_results
from stages.training.sft import Trained, set_threads, train_lora


@dataclass
class ExampleConfig:
    """What to train on the examples, and how. styles: of the answers to learn; none given: all."""

    domain: str = MISSING
    model: schema.Model = MISSING
    prompt: schema.Prompt = MISSING
    seed: int = MISSING
    styles: list[str] = field(default_factory=list)
    lora: schema.Lora = MISSING
    training: schema.Training = MISSING
    launch: Launch = field(default_factory=Launch)


@dataclass(frozen=True)
class Prepared:
    """What a backend trains on. base: the folder of the book model."""

    base: Path
    tokenizer: Any
    rows: list[TokenRow]
    eval_rows: list[TokenRow]
    base_sha256: str
    checkpoint_root: Path


class Backend(Protocol):
    """Who trains. All leave the same kind of adapter."""

    def origin(self, **values: Any) -> Origin:
        """The adapter's note, from the values of Origin."""

    def train(self, config: ExampleConfig, prepared: Prepared) -> AbstractContextManager[Trained]:
        """Trains; what it keeps to resume from goes when the block succeeds."""


class Trl:
    """In this process, by trl."""

    def origin(self, **values: Any) -> Origin:
        return Origin(**values)

    def train(self, config: ExampleConfig, prepared: Prepared) -> AbstractContextManager[Trained]:
        set_threads(config.training.num_threads)
        return train_lora(
            load_model(prepared.base, config.model),
            prepared.tokenizer,
            prepared.rows,
            prepared.eval_rows,
            config.lora,
            config.training,
            seed=config.seed,
            base_sha256=prepared.base_sha256,
            checkpoint_root=prepared.checkpoint_root,
            launched=config.launch,
        )


def train_on_examples(
    config: ExampleConfig, workspace: Workspace, stage: str, adapter: str, report: str, backend: Backend | None = None
) -> dict[str, Any]:
    """Trains (by trl where no backend is given) and writes `adapter` and `report` (folders, relative); returns the
    metrics.

    Raises DataError where no example is of the wanted styles.
    """
    files = [workspace.read(f"data/{config.domain}/rag/{name}.jsonl") for name in ("train", "validation")]
    base = workspace.read(f"models/{config.domain}/book_merged")
    tokenizer = load_tokenizer(base)
    renderer = Renderer(config.prompt, tokenizer)
    rows, eval_rows = (_rows(renderer, of_styles(file, config.styles)) for file in files)
    base_sha256, checkpoints = weights_sha256(base), workspace.cache("checkpoints", stage, config.domain)
    backend = backend or Trl()
    origin = backend.origin(
        model=config.model,
        base_sha256=base_sha256,
        prompt_hash=renderer.hash,
        data=files,
        lora=config.lora,
        training=config.training,
        seed=config.seed,
    )
    with backend.train(config, Prepared(base, tokenizer, rows, eval_rows, base_sha256, checkpoints)) as trained:
        metrics = {"num_train_rows": len(rows), "num_eval_rows": len(eval_rows)}
        write_results(workspace, trained, origin, adapter, report, metrics)
    return {**trained.figures, **metrics}


def of_styles(file: Path, styles: Sequence[str]) -> list[Example]:
    """The file's examples in these styles (none given: all). Raises DataError naming the styles it holds instead."""
    examples = [Example.from_row(row) for row in read_jsonl(file)]
    taken = [example for example in examples if not styles or example.style in styles]
    if not taken:
        found = ", ".join(sorted({example.style or '""' for example in examples})) or "no example at all"
        wanted = f"no example in the style {' or '.join(styles)}" if styles else "no example"
        raise DataError(f"{file}: {wanted}; there is {found}")
    return taken


def _rows(renderer: Renderer, examples: Sequence[Example]) -> list[TokenRow]:
    """Prompt and answer of each example as token ids, the very ones that inference starts from."""
    rows = []
    for example in examples:
        tokenised = renderer.tokenise(example.question, example.documents, example.answer)
        rows.append(TokenRow(example.id, tokenised.input_ids, tokenised.num_completion_tokens))
    return rows
