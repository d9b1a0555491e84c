"""The models that are compared, by name or by folder, one after the other.

base, book, tuned, <style>      as `groundtune chat` knows them (stages.serving.models)
path/to/merged                  a model folder: config.json, safetensors, tokenizer
path/to/adapter                 a LoRA folder, on the base or the book model, whichever it was trained on
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.generation.decoding import generate
from stages.generation.loading import (
    check_adapter,
    load_model,
    load_tokenizer,
    prompt_of,
    read_adapter_note,
    resolve_base,
)
from stages.generation.perplexity import TextScore, perplexity
from stages.prompts.chat import Message
from stages.prompts.renderer import Renderer
from stages.serving.compare_prompts import AskedPrompt, AuthorText
from stages.serving.models import LoadedModel, Models
from stages.training.lora import ADAPTER_CONFIG, weights_sha256

MAX_WINDOW_TOKENS = 2048
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"


@dataclass(frozen=True)
class ModelRun:
    """answers: to each prompt. own, other: scores of the author's and the other authors' held-out passages.

    system: the system message of prompts that bring none. plain: asked in plain text, for want of a chat template.
    """

    name: str
    answers: list[str]
    own: list[TextScore]
    other: list[TextScore]
    system: str = ""
    plain: bool = False


def check_names(models: Models, names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is neither a model of the domain nor a folder, or that comes twice."""
    for name in names:
        if name not in models.choices and not Path(name).is_dir():
            known = ", ".join(models.choices)
            raise ConfigError(f"{name}: neither one of {known} nor a folder with a model or an adapter")
    if len(set(names)) < len(names):
        raise ConfigError(f"{' '.join(names)}: a model is named twice")


@contextmanager
def opened(models: Models, name: str) -> Iterator[LoadedModel]:
    """The model in eval mode. Raises DataError for a folder that holds none, or an adapter of another base."""
    if name in models.choices:
        with models.use(name) as loaded:
            yield loaded
        return
    folder = Path(name)
    if (folder / ADAPTER_CONFIG).is_file():
        yield _adapted(models, folder)
    elif (folder / "config.json").is_file():
        tokenizer = _with_template(load_tokenizer(folder))
        yield LoadedModel(load_model(folder, models.model), tokenizer, Renderer(models.prompt, tokenizer))
    else:
        raise DataError(f"{folder}: neither config.json nor {ADAPTER_CONFIG} in it: no model and no adapter")


def _adapted(models: Models, adapter: Path) -> LoadedModel:
    """Raises DataError where the adapter was trained under another prompt than its own or the domain's."""
    note = read_adapter_note(adapter)
    weights = _base_of(models, adapter, note.get("base_sha256", ""))
    tokenizer = load_tokenizer(weights)
    renderer = Renderer(prompt_of(note, models.prompt), tokenizer)
    if note.get("prompt_hash"):  # "": trained on plain text
        check_adapter(adapter, renderer.hash)
    return LoadedModel(load_model(weights, models.model, adapter), tokenizer, renderer, own_prompt="prompt" in note)


def _with_template(tokenizer: Any) -> Any:
    """A model that knows no chat is asked in plain text: the messages, with an empty line after each."""
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    return tokenizer


def _base_of(models: Models, adapter: Path, wanted: str) -> Path:
    """The base or the book model of the domain: the one whose weights the adapter names."""
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
        asked = [loaded.renderer.prompt_ids(_messages(loaded, prompt)) for prompt in prompts]
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
        plain = loaded.tokenizer.chat_template == PLAIN_TEMPLATE
        system = loaded.renderer.system([])
    return ModelRun(name, [answer.strip() for answer in answers], *scores, system=system, plain=plain)


def _messages(loaded: LoadedModel, prompt: AskedPrompt) -> list[Message]:
    """Under the model's system message, where the prompt brings none; DataError for one that its adapter refuses."""
    try:
        return loaded.renderer.given(prompt.messages, only_this_prompt=loaded.own_prompt)
    except DataError as error:
        raise DataError(f"{prompt.origin}: {error}") from error


def _context(network: Any, models: Models) -> int:
    return int(getattr(network.config, "max_position_embeddings", None) or models.model.max_context_tokens)
