"""Adapters of other manners: of answering (from the examples of build_rag_data), or of a writer (from prepare_style).

reads   `base`: the book model, or models/base/<model>
        data/<domain>/<data>/{train,validation}.jsonl of the variant: rag, of its styles; or style/<writer>
writes  models/<domain>/styles/<variant>/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_style/<variant>/{metrics.json,curve.csv}

    python -m stages.train_style @socratic                            {data: rag, styles: [socratic]}
    python -m stages.train_style @verne                               {data: style/verne}
    python -m stages.train_style @socratic -m train_style.lora.r=8,16

A writer's adapter is trained under the system prompt of its examples. adapter.json carries that prompt: chat, compare
and export load it under the very same one, and under no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from stages.axolotl.environment import venv_versions
from stages.axolotl.settings import Axolotl
from stages.axolotl.training import AxolotlOrigin, by_hand_places, train_with_axolotl
from stages.core import launch
from stages.core.errors import DataError
from stages.core.schema import Prompt, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import base_folder, load_tokenizer, resolve_base
from stages.prompts.renderer import Renderer
from stages.style.examples import StyleExample, read_examples
from stages.training.example_adapter import (
    PARTS,
    ExampleConfig,
    Material,
    Trl,
    rag_material,
    row_of,
    train_adapter,
)
from stages.training.objective import TokenRow
from stages.training.results import Origin
from stages.training.sft import Trained

RAG, WRITER = "rag", "style/"  # what `data` is, or begins with


@dataclass
class Config(ExampleConfig):
    """Mirrors conf/train_style with one of its variants over it. truncate: cut examples above training.max_length."""

    OF_ALL_VARIANTS: ClassVar[tuple[str, ...]] = ("base",)  # a variant's own is no dependency in dvc.yaml

    variant: str = MISSING
    data: str = ""
    base: str = MISSING
    truncate: bool = False
    backend: str = "trl"
    axolotl: Axolotl = MISSING

    def __post_init__(self) -> None:
        one_of(self.backend, ("trl", "axolotl"), "train_style.backend")
        key = f"train_style.variants.{self.variant}"
        if self.data != RAG and (not self.data.startswith(WRITER) or not self.writer):
            raise ValueError(f"{key}.data: {self.data!r} is neither {RAG} (name its styles) nor {WRITER}WRITER")
        if self.writer and self.styles:
            raise ValueError(f"{key}: {self.data} has one style, so no `styles` to choose from; take them out")
        if not self.writer and not self.styles:
            raise ValueError(f"{key}.styles: name the styles that it learns")
        if self.backend == "axolotl" and self.launch.kind != "single":
            raise ValueError("launch: axolotl starts its own processes; launch=single, or train_style.backend=trl")

    @property
    def writer(self) -> str:
        """The variant of prepare_style that is learned from; "" where it learns styles."""
        return self.data.removeprefix(WRITER) if self.data != RAG else ""


@dataclass(frozen=True)
class ThroughAxolotl:
    """A backend: axolotl in its own environment. adapter: the folder that is written, relative."""

    settings: Axolotl
    workspace: Workspace
    adapter: str

    def origin(self, **values: Any) -> Origin:
        versions = venv_versions(self.settings, self.workspace.inputs)
        return AxolotlOrigin(**values, axolotl_versions=versions, quantise=self.settings.quantise)

    def train(
        self, config: ExampleConfig, material: Material, base_sha256: str, checkpoint_root: Path
    ) -> AbstractContextManager[Trained]:
        return train_with_axolotl(
            *(material.base, material.renderer.tokenizer, material.rows, material.eval_rows),
            *(config.lora, config.training, self.settings),
            seed=config.seed,
            base_sha256=base_sha256,
            checkpoint_root=checkpoint_root,
            root=self.workspace.inputs,
            by_hand=by_hand_places(self.workspace, material.base, self.adapter),
        )


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, writes; returns the metrics."""
    launch.train("train_style", config, workspace)
    folders = f"models/{config.domain}/styles/{config.variant}", f"reports/{config.domain}/train_style/{config.variant}"
    plain = config.base == base_folder(config.model)
    base = resolve_base(workspace, config.model) if plain else workspace.read(config.base)
    whole = writer_material(config, workspace, base) if config.writer else rag_material(config, workspace, base)
    material, cut = fitted(config, whole)
    axolotl = ThroughAxolotl(config.axolotl, workspace, folders[0])
    return train_adapter(
        *(config, workspace, material, f"train_style-{config.variant}", *folders),
        axolotl if config.backend == "axolotl" else Trl(),
        cut,
        prompt=material.renderer.prompt if config.writer else None,
        base=config.base,
    )


def writer_material(config: Config, workspace: Workspace, base: Path) -> Material:
    """The writer's passages, under the system prompt that prepare_style has measured.

    Raises DataError where the files are missing, empty, or of more than one system prompt.
    """
    tokenizer = load_tokenizer(base)
    files = [workspace.read(f"data/{config.domain}/{config.data}/{part}.jsonl") for part in PARTS]
    parts = [read_examples(file) for file in files]
    usual = Renderer(config.prompt, tokenizer)
    renderer = Renderer(_own_prompt(config, usual, [e for part in parts for e in part]), tokenizer)
    rows = ([row_of(renderer, e.id, e.user, [], e.passage) for e in part] for part in parts)
    return Material(base, renderer, files, *rows)


def _own_prompt(config: Config, renderer: Renderer, examples: Sequence[StyleExample]) -> Prompt:
    """The domain's prompt with the writer's text in place of its own; the text comes from a file: it is escaped."""
    found = sorted({renderer.escape(example.system.strip()) for example in examples})
    if len(found) != 1:
        raise DataError(
            f"data/{config.domain}/{config.data}: {len(found)} system prompts in its examples; an adapter is trained "
            f"under one: run `dvc repro prepare_style@{config.writer}`"
        )
    return replace(
        config.prompt,
        name=config.writer,
        without_documents=found[0],
        with_documents=f"{found[0]}\n\n{{documents}}",
    )


def fitted(config: Config, material: Material) -> tuple[Material, dict[str, int]]:
    """The rows within training.max_length, and how many were cut to it, where that is wanted.

    Raises DataError for longer ones where it is not. A row of which nothing is left to learn is refused by training.
    """
    limit = config.training.max_length
    rows = [*material.rows, *material.eval_rows]
    excess = [len(row.input_ids) - limit for row in rows if len(row.input_ids) > limit]
    if excess and not config.truncate:
        raise DataError(
            f"train_style@{config.variant}: {len(excess)} of {len(rows)} examples are above training.max_length "
            f"{limit}; the longest has {limit + max(excess)} tokens, the model takes "
            f"{config.model.max_context_tokens}: raise it, prepare shorter passages (prepare_style.max_tokens), or set "
            "train_style.truncate=true to have their ends cut"
        )
    counts = {"num_truncated_rows": len(excess), "num_truncated_tokens": sum(excess)}
    train, held_out = ([_cut(row, limit) for row in part] for part in (material.rows, material.eval_rows))
    return replace(material, rows=train, eval_rows=held_out), counts


def _cut(row: TokenRow, limit: int) -> TokenRow:
    """Without what is above the limit, which is at the end: of the answer."""
    excess = max(0, len(row.input_ids) - limit)
    return replace(row, input_ids=row.input_ids[:limit], num_trained=max(0, row.num_trained - excess))


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
