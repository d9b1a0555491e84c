"""Merges the book adapter into the base, reads the result back from disk, and proves that it is the same model.

reads   models/base/<model>/manifest.json and the weights it names; models/<domain>/book_lora/
writes  models/<domain>/book_merged/ (weights, tokenizer, configs, merge.json: what it was made from, how near it is)
        reports/<domain>/merge_book/metrics.json

    python -m stages.merge_book

The logits of base + adapter on real text are taken before the merge, those of the merged model after a reload; where
they differ by more than `max_logit_difference`, or fewer than `min_agreement` of the greedy next tokens agree, the
merge is refused and no model is left behind. Both compute in float32, whatever the dtype of the weights, so that what
differs is the merge and not the rounding on the way. One model is in memory at a time.
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core import schema
from stages.core.atomic import new_folder, write_json
from stages.core.errors import DataError
from stages.core.seeding import seed_everything
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import token_ids, unrelated_texts, windows_of
from stages.training.lora import READABLE, versions, weights_sha256
from stages.training.merging import Comparison, compare, merge_in_place, prompt_logits

PROMPT_TOKENS = 256


@dataclass
class Config:
    """What to merge and how near the result must be."""

    domain: str = MISSING
    model: schema.Model = MISSING
    seed: int = MISSING
    min_agreement: float = MISSING
    max_logit_difference: dict[str, float] = field(default_factory=dict)  # per dtype
    num_check_tokens: int = MISSING
    max_shard_size: str = MISSING

    def __post_init__(self) -> None:
        if self.num_check_tokens < 2:
            raise ValueError("num_check_tokens must be at least 2")
        if missing := {self.model.dtype} - set(self.max_logit_difference):
            raise ValueError(f"max_logit_difference: no value for {', '.join(missing)}, the model's dtype")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Merges, verifies, writes; returns the metrics. DataError where the result is not base + adapter."""
    seed_everything(config.seed)
    base = resolve_base(workspace, config.model)
    adapter = workspace.read(f"models/{config.domain}/book_lora")
    target = workspace.write(f"models/{config.domain}/book_merged")
    tokenizer = load_tokenizer(base)
    prompts = _prompts(tokenizer, config.num_check_tokens)
    try:
        with new_folder(target) as folder:
            reference = _merge(config, base, adapter, tokenizer, prompts, folder)
            comparison = _verify(config, tokenizer, prompts, reference, folder)
            origin = {"base_sha256": weights_sha256(base), "adapter_sha256": weights_sha256(adapter)}
            note = {**origin, "model": config.model.name, "dtype": config.model.dtype, "versions": versions()}
            write_json(folder / "merge.json", {**note, **asdict(comparison)})
            for file in folder.iterdir():
                file.chmod(READABLE)
    except DataError:
        shutil.rmtree(target, ignore_errors=True)  # an older merge would pass for the refused one
        raise
    write_json(workspace.write(f"reports/{config.domain}/merge_book/metrics.json"), asdict(comparison))
    return asdict(comparison)


def _prompts(tokenizer: Any, num_tokens: int) -> list[list[int]]:
    """Windows of real text, `num_tokens` ids in all."""
    ids = [i for text in unrelated_texts(num_chars=20 * num_tokens) for i in token_ids(tokenizer, text)]
    return windows_of(ids[:num_tokens], PROMPT_TOKENS)


def _merge(
    config: Config, base: Path, adapter: Path, tokenizer: Any, prompts: list[list[int]], folder: Path
) -> list[Any]:
    """Writes the merged model to `folder`; the logits of base + adapter, from before the merge."""
    model = load_model(base, config.model, adapter)
    reference = prompt_logits(model, prompts)
    merged = merge_in_place(model)
    merged.save_pretrained(folder, max_shard_size=config.max_shard_size)
    tokenizer.save_pretrained(folder)
    return reference


def _verify(config: Config, tokenizer: Any, prompts: list[list[int]], reference: list[Any], folder: Path) -> Comparison:
    """How near the model read back from disk is; DataError where it is not near enough, or its tokenizer differs."""
    gc.collect()  # the model before has cycles; without this two 8B models would be in memory
    reloaded = load_tokenizer(folder)
    if reloaded.chat_template != tokenizer.chat_template or reloaded.get_vocab() != tokenizer.get_vocab():
        raise DataError(f"the tokenizer of {config.model.name} does not survive being saved; nothing was written")
    comparison = compare(reference, prompt_logits(load_model(folder, config.model), prompts))
    comparison.check(config.max_logit_difference[config.model.dtype], config.min_agreement)
    return comparison


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
