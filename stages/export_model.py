"""A trained model as other programs load it, each file read back and compared before it gets its name.

reads   the model folder `base` and the adapter `adapter` of a variant (of any track); models/base/<model>/manifest.json
        examples for golden prompts; metrics files for the card
writes  models/export/<domain>/<variant>/: merged shards, tokenizer, licence; gguf/ (one file a type, a Modelfile each);
        adapter/ (as it is); golden.jsonl, export.json (what was measured), README.md (the card), manifest.json (sha256)
        reports/<domain>/export_model/<variant>/metrics.json

    python -m stages.export_model @rag
    python -m stages.export_model @rag 'export_model.gguf=[Q4_0]'

With `merge: false` (adapters that answer with numbers read off their logits, servers that load LoRA) only the adapters
are exported, as they are: every folder below `adapter` that holds one.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core import schema
from stages.core.atomic import new_folder, write_json
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file, sha256_files
from stages.core.jsonl import write_jsonl
from stages.core.schema import one_of
from stages.core.seeding import seed_everything
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.export.adapters import Adapter, check_base, check_chain, read_adapter
from stages.export.architectures import architecture_of
from stages.export.card import CardConfig, Provenance, dvc_revisions, write_card
from stages.export.comparison import Measured, Reference, compare_files, measure_merges, merged_in_memory
from stages.export.gguf_folder import KINDS, check_kinds, write_gguf_folder
from stages.export.gguf_tokenizer import check_size
from stages.export.golden import are_chats, golden_prompts, greedy_answers
from stages.export.manifest import verified_export, write_manifest
from stages.export.merge import CARRIED, carry_over, merge_weights, require_space
from stages.export.tensor_files import Weights
from stages.generation.loading import base_folder, check_adapter, load_tokenizer, resolve_base
from stages.generation.model_files import LEGAL, model_files
from stages.generation.perplexity import token_ids, unrelated_texts, windows_of
from stages.prompts.renderer import Renderer
from stages.training.lora import ADAPTER_CONFIG, weights_sha256
from stages.training.merging import prompt_logits

WINDOW_TOKENS = 256
ADAPTER_FOLDER = "adapter"


@dataclass
class Config:
    """Mirrors conf/export_model.

    base: folder of the model that the adapter was trained on; "": the base model. adapter: folder; "": none, the base
    is exported. gguf: types to write. system: for the Modelfile; "": the prompt's text without documents.
    min_agreement: of a merge with what was trained; max_logit_difference: of a file that loses nothing, read back.
    """

    domain: str = MISSING
    model: schema.Model = MISSING
    prompt: schema.Prompt = MISSING
    seed: int = MISSING
    variant: str = MISSING
    base: str = ""
    adapter: str = ""
    merge: bool = True
    gguf: list[str] = field(default_factory=list)
    system: str = ""
    examples: str = MISSING
    num_golden: int = MISSING
    max_new_tokens: int = MISSING
    num_check_tokens: int = MISSING
    min_agreement: float = MISSING
    max_logit_difference: float = MISSING
    max_shard_bytes: int = MISSING
    num_threads: int = 0
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        for kind in self.gguf:
            one_of(kind, KINDS, "gguf")
        if not self.merge and not self.adapter:
            raise ValueError("adapter: with merge: false there must be one, else nothing is exported")

    @property
    def name(self) -> str:
        """What the exported model is called."""
        return f"{self.domain}-{self.variant}"


@dataclass(frozen=True)
class Source:
    """What is exported. origin: the base model's own folder, which may hold the licence; base: what is merged into."""

    origin: Path
    base: Path
    base_sha256: str
    chain: dict[str, Any]
    adapter: Path | None


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Exports, verifies, writes; returns what was measured. DataError leaves no export behind."""
    seed_everything(config.seed)
    source = _source(config, workspace)
    target = workspace.write(f"models/export/{config.domain}/{config.variant}")
    try:
        with new_folder(target) as folder:
            measured = _export_merged(config, workspace, source, folder) if config.merge else Measured()
            carry_over([source.base, source.origin], folder, LEGAL)  # binds adapters too
            notes = _copy_adapters(source, folder)
            provenance = _provenance(config, workspace, source, folder, notes)
            write_card(folder / "README.md", workspace, config.card, provenance, measured)
            metrics = {**measured.to_json(), "num_adapters": len(notes), "num_bytes": _num_bytes(folder)}
            write_json(folder / "export.json", metrics)
            write_manifest(folder)
            verified_export(folder)
    except DataError:
        shutil.rmtree(target, ignore_errors=True)  # an older export would pass for the refused one
        raise
    write_json(workspace.write(f"reports/{config.domain}/export_model/{config.variant}/metrics.json"), metrics)
    return metrics


def _source(config: Config, workspace: Workspace) -> Source:
    origin = resolve_base(workspace, config.model)
    base = workspace.read(config.base) if config.base else origin
    adapter = workspace.read(config.adapter) if config.adapter else None
    return Source(origin, base, weights_sha256(base), check_chain(base, origin), adapter)


def _export_merged(config: Config, workspace: Workspace, source: Source, folder: Path) -> Measured:
    """Writes weights and GGUF files, and compares them; the measurements."""
    weights, tokenizer = _checked_inputs(config, source)
    adapter = read_adapter(source.adapter, source.base_sha256, weights.entries) if source.adapter else None
    require_space(folder, weights, len(config.gguf))
    renderer = Renderer(config.prompt, tokenizer)
    if adapter and adapter.note["prompt_hash"] and not are_chats(workspace.read(config.examples)):
        check_adapter(adapter.folder, renderer.hash)
    model = replace(config.model, dtype=weights.model_dtype())
    reference, prompts = _reference(config, workspace, source.base, model, adapter, renderer)
    merge_weights(weights, adapter, folder, config.max_shard_bytes, reference.base)
    carry_over([source.base, source.origin], folder, CARRIED)
    system = config.system or renderer.system([])
    files = write_gguf_folder(folder, config.gguf, config.name, tokenizer, system, config.model.max_context_tokens)
    write_jsonl(folder / "golden.jsonl", [one.to_row() for one in reference.golden])
    limits = config.max_new_tokens, config.max_logit_difference
    return Measured(reference.merges, compare_files(folder, files, model, reference, prompts, *limits))


def _checked_inputs(config: Config, source: Source) -> tuple[Weights, Any]:
    """Weights and tokenizer. Raises DataError or ConfigError for what can be known before anything is computed."""
    import torch

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    check_kinds(config.gguf)
    architecture_of(source.base)
    model_files(source.base)  # a missing tokenizer
    weights, tokenizer = Weights(source.base), load_tokenizer(source.base)
    check_size(source.base, len(tokenizer), weights.entries["model.embed_tokens.weight"].shape[0])
    return weights, tokenizer


def _reference(
    config: Config, workspace: Workspace, base: Path, model: schema.Model, adapter: Adapter | None, renderer: Renderer
) -> tuple[Reference, list[list[int]]]:
    """The merged model in memory, asked; and the check prompts: the golden ones, and windows of unrelated text."""
    golden = golden_prompts(workspace.read(config.examples), renderer, config.num_golden)
    ids = [i for text in unrelated_texts(20 * config.num_check_tokens) for i in token_ids(renderer.tokenizer, text)]
    prompts = [one.input_ids for one in golden] + windows_of(ids[: config.num_check_tokens], WINDOW_TOKENS)
    merges = measure_merges(base, model, adapter, prompts, config.min_agreement) if adapter else []
    gc.collect()  # the models that were measured have cycles
    merged = merged_in_memory(base, model, adapter, Reference([], [], merges).base)
    answers = greedy_answers(merged, renderer.tokenizer, golden, config.max_new_tokens)
    answered = [replace(one, answer=answer) for one, answer in zip(golden, answers, strict=True)]
    return Reference(prompt_logits(merged, prompts), answered, merges), prompts


def _copy_adapters(source: Source, folder: Path) -> dict[str, dict[str, Any]]:
    """The adapters as they are, below adapter/; path in the export -> adapter.json. DataError for another base."""
    if source.adapter is None:
        return {}
    found = sorted(path.parent for path in source.adapter.rglob(ADAPTER_CONFIG))
    if not found:
        raise DataError(f"{source.adapter}: no adapter in it ({ADAPTER_CONFIG} is missing); train it, or name another")
    notes = {}
    for adapter in found:
        name = (Path(ADAPTER_FOLDER) / adapter.relative_to(source.adapter)).as_posix()
        notes[name] = check_base(adapter, source.base_sha256)
        shutil.copytree(adapter, folder / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if sha256_files(folder / name) != sha256_files(adapter):
            raise DataError(f"{adapter}: changed while it was copied; run again")
    return notes


def _provenance(
    config: Config, workspace: Workspace, source: Source, folder: Path, notes: dict[str, dict[str, Any]]
) -> Provenance:
    paths: Sequence[str] = [config.base or base_folder(config.model), *([config.adapter] if config.adapter else [])]
    template = folder / "chat_template.jinja"
    return Provenance(
        config.name,
        config.model.name,
        config.model.path or config.model.name,
        config.model.revision,
        notes,
        dvc_revisions(workspace, paths),
        sha256_file(template) if template.is_file() else "",
        source.chain,
    )


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
