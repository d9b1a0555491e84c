"""A LoRA adapter trained on examples rendered as prompts, loss on the answers only.

What train_rag_lora and every variant of train_style do; they differ in the examples they take and in their settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

PARTS = ("train", "validation")


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
class Material:
    """What is trained on: the folder of a model, and examples (of these files) rendered for it."""

    base: Path
    renderer: Renderer
    files: Sequence[Path]
    rows: list[TokenRow]
    eval_rows: list[TokenRow]


class Backend(Protocol):
    """Who trains. All leave the same kind of adapter."""

    def origin(self, **values: Any) -> Origin:
        """The adapter's note, from the values of Origin."""

    def train(
        self, config: ExampleConfig, material: Material, base_sha256: str, checkpoint_root: Path
    ) -> AbstractContextManager[Trained]:
        """Trains; what it keeps to resume from goes when the block succeeds."""


class Trl:
    """In this process, by trl."""

    def origin(self, **values: Any) -> Origin:
        return Origin(**values)

    def train(
        self, config: ExampleConfig, material: Material, base_sha256: str, checkpoint_root: Path
    ) -> AbstractContextManager[Trained]:
        set_threads(config.training.num_threads)
        return train_lora(
            load_model(material.base, config.model),
            material.renderer.tokenizer,
            material.rows,
            material.eval_rows,
            config.lora,
            config.training,
            seed=config.seed,
            base_sha256=base_sha256,
            checkpoint_root=checkpoint_root,
            launched=config.launch,
        )


def rag_material(config: ExampleConfig, workspace: Workspace, base: Path) -> Material:
    """The examples with documents, in the domain's prompt. Raises DataError where none is of the wanted styles."""
    renderer = Renderer(config.prompt, load_tokenizer(base))
    files = [workspace.read(f"data/{config.domain}/rag/{part}.jsonl") for part in PARTS]
    return Material(base, renderer, files, *(_rows(renderer, of_styles(file, config.styles)) for file in files))


def train_adapter(
    config: ExampleConfig,
    workspace: Workspace,
    material: Material,
    stage: str,
    adapter: str,
    report: str,
    backend: Backend | None = None,
    counts: Mapping[str, int] | None = None,
    **of_origin: Any,
) -> dict[str, Any]:
    """Trains (by trl where no backend is given) and writes `adapter` and `report` (folders, relative); returns the
    metrics, `counts` among them. of_origin: what else the adapter's note says (see Origin)."""
    base_sha256, checkpoints = weights_sha256(material.base), workspace.cache("checkpoints", stage, config.domain)
    backend = backend or Trl()
    origin = backend.origin(
        model=config.model,
        base_sha256=base_sha256,
        prompt_hash=material.renderer.hash,
        data=material.files,
        lora=config.lora,
        training=config.training,
        seed=config.seed,
        **of_origin,
    )
    metrics = {"num_train_rows": len(material.rows), "num_eval_rows": len(material.eval_rows), **(counts or {})}
    with backend.train(config, material, base_sha256, checkpoints) as trained:
        write_results(workspace, trained, origin, adapter, report, metrics)
    return {**trained.figures, **metrics}


def of_styles(file: Path, styles: Sequence[str]) -> list[Example]:
    """The file's examples in these styles (none given: all). Raises DataError naming the styles it holds instead."""
    examples = [Example.from_row(row) for row in read_jsonl(file)]
    taken = [example for example in examples if example.is_of(styles)]
    if not taken:
        found = ", ".join(sorted({example.style or '""' for example in examples})) or "no example at all"
        wanted = f"no example in the style {' or '.join(styles)}" if styles else "no example"
        raise DataError(f"{file}: {wanted}; there is {found}")
    return taken


def _rows(renderer: Renderer, examples: Sequence[Example]) -> list[TokenRow]:
    return [row_of(renderer, e.id, e.question, e.documents, e.answer) for e in examples]


def row_of(renderer: Renderer, identifier: str, question: str, documents: Sequence[str], answer: str) -> TokenRow:
    """Prompt and answer as token ids, the very ones that inference starts from; the answer is what is learned."""
    tokenised = renderer.tokenise(question, documents, answer)
    return TokenRow(identifier, tokenised.input_ids, tokenised.num_completion_tokens)
