"""The models that are compared, by name or by folder, one after the other.

base, book, tuned, <style>      as `groundtune chat` knows them (stages.serving.models)
NAME@v1.0.0                     a registered version of an export (stages.serving.releases)
path/to/merged                  a model folder: config.json, safetensors, tokenizer; an export is verified
path/to/adapter                 a LoRA folder, on the base or the book model, whichever it was trained on
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.export.manifest import is_export, load_verified
from stages.generation.decoding import generate
from stages.generation.loading import ADAPTER_NOTE, load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import TextScore, perplexity
from stages.prompts.chat import Message
from stages.prompts.renderer import Renderer
from stages.serving.compare_prompts import AskedPrompt, AuthorText
from stages.serving.models import LoadedModel, Models
from stages.serving.releases import find, is_release
from stages.training.lora import ADAPTER_CONFIG, weights_sha256

MAX_WINDOW_TOKENS = 2048


@dataclass(frozen=True)
class ModelRun:
    """answers: to each prompt. own, other: scores of the author's and the other authors' held-out passages."""

    name: str
    answers: list[str]
    own: list[TextScore]
    other: list[TextScore]


def check_names(models: Models, names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no model, version or folder, or that comes twice."""
    for name in names:
        if name in models.choices or Path(name).is_dir():
            continue
        if not is_release(name):
            known = ", ".join(models.choices)
            raise ConfigError(f"{name}: neither one of {known} nor a folder with a model or an adapter")
        find(name, models.workspace, models.domain)
    if len(set(names)) < len(names):
        raise ConfigError(f"{' '.join(names)}: a model is named twice")


@contextmanager
def opened(models: Models, name: str) -> Iterator[LoadedModel]:
    """The model in eval mode. Raises DataError for a folder that holds none, or an adapter of another base."""
    if not Path(name).is_dir() or name in models.choices:
        with models.use(name) as loaded:
            yield loaded
        return
    folder = Path(name)
    if is_export(folder):
        load_verified(folder, models.workspace)
    if (folder / ADAPTER_CONFIG).is_file():
        weights, adapter = _base_of(models, folder), folder
    elif (folder / "config.json").is_file():
        weights, adapter = folder, None
    else:
        raise DataError(f"{folder}: neither config.json nor {ADAPTER_CONFIG} in it: no model and no adapter")
    tokenizer = load_tokenizer(weights)
    yield LoadedModel(load_model(weights, models.model, adapter), tokenizer, Renderer(models.prompt, tokenizer))


def _base_of(models: Models, adapter: Path) -> Path:
    """The base or the book model of the domain: the one whose weights the adapter names."""
    note = adapter / ADAPTER_NOTE
    if not note.is_file():
        raise DataError(f"{adapter}: no {ADAPTER_NOTE}, so nobody knows which base it was trained on")
    wanted = json.loads(note.read_text(encoding="utf-8")).get("base_sha256")
    book = models.workspace.inputs / "models" / models.domain / "book_merged"
    for folder in (resolve_base(models.workspace, models.model), *([book] if book.is_dir() else [])):
        if weights_sha256(folder) == wanted:
            return folder
    raise DataError(
        f"{adapter}: trained on another base ({str(wanted)[:12]}) than {models.model.name} or its book model"
    )


def run_model(
    models: Models,
    name: str,
    prompts: Sequence[AskedPrompt],
    author: AuthorText | None,
    max_new_tokens: int,
    batch_size: int,
) -> ModelRun:
    """Greedy answers, and losses on connected text."""
    with opened(models, name) as loaded:
        limit = _context(loaded.network, models)
        asked = [loaded.renderer.prompt_ids(_messages(loaded.renderer, prompt)) for prompt in prompts]
        for prompt, ids in zip(prompts, asked, strict=True):
            if len(ids) + max_new_tokens > limit:
                raise DataError(
                    f"{prompt.origin}: a prompt of {len(ids)} tokens and {max_new_tokens} new ones do not fit into the "
                    f"{limit} tokens of {name}; shorten it, or give --max-new-tokens"
                )
        answers = generate(loaded.network, loaded.tokenizer, asked, max_new_tokens, batch_size, name)
        scores = [
            perplexity(loaded.network, loaded.tokenizer, texts, min(limit, MAX_WINDOW_TOKENS), batch_size)
            for texts in ([] if author is None else author.held_out, [] if author is None else author.all_others)
        ]
    return ModelRun(name, [answer.strip() for answer in answers], *scores)


def _messages(renderer: Renderer, prompt: AskedPrompt) -> list[Message]:
    """Untrusted texts in it can forge no turn."""
    return [{"role": message["role"], "content": renderer.escape(message["content"])} for message in prompt.messages]


def _context(network: Any, models: Models) -> int:
    return int(getattr(network.config, "max_position_embeddings", None) or models.model.max_context_tokens)
