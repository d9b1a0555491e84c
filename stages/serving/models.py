"""The models that a conversation can switch between, each loaded when it is first asked for.

    tuned   the base with the book merged in, and the RAG-context LoRA
    book    the same without the LoRA
    base    the base as it came
    and each style adapter of the domain by its name: the book model, or the base, with that adapter in place of the
            RAG LoRA, under the adapter's own prompt where it brings one
    NAME@v1.0.0   a registered version of an exported model (stages.serving.releases)

All on the same weights share them: adapters are switched, not loaded again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Model, Prompt
from stages.core.workspace import Workspace
from stages.generation.loading import (
    base_folder,
    check_adapter,
    load_model,
    load_tokenizer,
    prompt_of,
    read_adapter_note,
    resolve_base,
)
from stages.prompts.renderer import Renderer
from stages.serving.releases import files_of, find, is_release

TUNED, UNTUNED = "tuned", ("book", "base")
CHOICES = (TUNED, *UNTUNED)
Signature = tuple[tuple[str, int, int, int], ...]
_VERSIONS = count()  # in the names of adapters: no name is used twice on the same weights


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode with the tokenizer and renderer that belong to it.

    own_prompt: the renderer's prompt is one that the adapter was trained under, without documents.
    """

    network: Any
    tokenizer: Any
    renderer: Renderer
    own_prompt: bool = False


@dataclass(frozen=True)
class Stamp:
    """Of the files that models are loaded from: another one where any was replaced."""

    weights: Signature
    adapters: Signature


@dataclass(frozen=True)
class Adapter:
    """A LoRA of the domain: the weights below it, base or book, and the prompt it was trained under, maybe its own."""

    folder: Path
    weights: str
    prompt: Prompt
    own: bool

    def renderer(self, tokenizer: Any) -> Renderer:
        """Of its prompt. Raises DataError where it was trained with another one."""
        renderer = Renderer(self.prompt, tokenizer)
        check_adapter(self.folder, renderer.hash)
        return renderer


class Models:
    """Loads on demand. Two sets of weights stay side by side where memory allows, else the older one goes.

    What is loaded stays as it is when its files change; `fresh` reads them anew.
    """

    def __init__(
        self, workspace: Workspace, model: Model, prompt: Prompt, domain: str, styles: Sequence[str] = ()
    ) -> None:
        self.workspace, self.model, self.prompt, self.domain = workspace, model, prompt, domain
        self.styles = tuple(styles)
        self.choices = (*CHOICES, *styles)
        self._loaded: dict[str, LoadedModel] = {}
        self._adapted: dict[str, tuple[str, LoadedModel]] = {}  # choice -> weights, and the model but for its network
        self._version = next(_VERSIONS)

    def load(self, choice: str) -> LoadedModel:
        """Raises DataError where files are missing or the LoRA was trained with another prompt; ConfigError for a
        choice that does not exist."""
        if is_release(choice):
            return self._release(choice)
        if choice not in self.choices:
            raise ConfigError(f"model: {choice!r} is not one of {', '.join(self.choices)}")
        if choice in UNTUNED:
            return self._weights(choice)
        if choice in self._adapted:
            weights, adapted = self._adapted[choice]
            return replace(adapted, network=self._weights(weights).network)
        adapter = self.adapter(choice)
        loaded = self._weights(adapter.weights)
        renderer = adapter.renderer(loaded.tokenizer)
        network = _with_adapter(loaded.network, adapter.folder, self._adapter_name(choice))
        self._loaded[adapter.weights] = replace(loaded, network=network)
        self._adapted[choice] = (
            adapter.weights,
            replace(loaded, network=network, renderer=renderer, own_prompt=adapter.own),
        )
        return self._adapted[choice][1]

    def adapter(self, choice: str) -> Adapter:
        """What `choice`, tuned or a style, is besides its weights. Raises DataError where its files are missing."""
        name = f"styles/{choice}" if choice in self.styles else "rag_lora"
        folder = self.workspace.read(f"models/{self.domain}/{name}")
        note = read_adapter_note(folder)
        weights = "base" if note.get("base") == base_folder(self.model) else "book"
        return Adapter(folder, weights, prompt_of(note, self.prompt), "prompt" in note)

    def folder(self, weights: str) -> Path:
        """Where `base` or `book` lies. Raises DataError where it does not."""
        if weights == "base":
            return resolve_base(self.workspace, self.model)
        return self.workspace.read(f"models/{self.domain}/book_merged")

    @contextmanager
    def use(self, choice: str) -> Iterator[LoadedModel]:
        """The model as `choice` means it, until the block ends: for `book` and `base` with the LoRA switched off."""
        loaded = self.load(choice)
        name = self._adapter_name(choice)
        if (choice in self.styles or choice == TUNED) and loaded.network.active_adapter != name:
            loaded.network.set_adapter(name)
        with _without_lora(loaded.network) if choice in UNTUNED and _has_lora(loaded.network) else nullcontext():
            yield loaded

    def stamp(self) -> Stamp:
        """Of the files as they are now."""
        own = f"models/{self.domain}"
        adapters = [f"{own}/rag_lora", *(f"{own}/styles/{style}" for style in self.styles)]
        weights = [base_folder(self.model), f"{own}/book_merged"]
        return Stamp(signature_of(self.workspace, weights), signature_of(self.workspace, adapters))

    def fresh(self, keep_weights: bool = False) -> Models:
        """These models for files that have changed; what is loaded here can be used side by side.

        keep_weights: only adapters have changed, and the weights below them can be shared.
        """
        other = copy(self)
        other._adapted, other._version = {}, next(_VERSIONS)
        if not keep_weights:
            other._loaded = {}
        return other

    def drop_adapters(self) -> None:
        """Takes this version's adapters off weights that others share. The models are not to be used any more."""
        for choice, (weights, _) in self._adapted.items():
            if weights in self._loaded:
                self._loaded[weights].network.delete_adapter(self._adapter_name(choice))
        self._adapted = {}

    def _adapter_name(self, choice: str) -> str:
        return f"{choice}-{self._version}"

    def _weights(self, name: str) -> LoadedModel:
        """`base` or `book`, with whatever adapters it has been given."""
        if name in self._loaded:
            return self._loaded[name]
        folder = self.folder(name)
        self._make_room(folder)
        _silence_loading()
        tokenizer = load_tokenizer(folder)
        renderer = Renderer(self.prompt, tokenizer)
        self._loaded[name] = LoadedModel(load_model(folder, self.model), tokenizer, renderer)
        return self._loaded[name]

    def _release(self, spec: str) -> LoadedModel:
        """A registered version, under the prompt and in the dtype of its own time."""
        if spec in self._loaded:
            return self._loaded[spec]
        release = find(spec, self.workspace, self.domain)
        folder = files_of(release, self.workspace)
        if not (folder / "config.json").is_file():
            raise DataError(f"{release.spec}: adapters only, no merged model; it answers where its base is served")
        self._make_room(folder)
        _silence_loading()
        tokenizer = load_tokenizer(folder)
        renderer = Renderer(release.prompt(folder), tokenizer)
        network = load_model(folder, release.model)
        self._loaded[spec] = LoadedModel(network, tokenizer, renderer, release.has_own_prompt(folder))
        return self._loaded[spec]

    def _make_room(self, folder: Path) -> None:
        """Forgets what is loaded where `folder` would not fit beside it."""
        from stages.serving.machine import free_model_memory_bytes

        if self._loaded and weights_bytes(folder) > free_model_memory_bytes():
            import gc

            import torch

            self._loaded.clear()
            self._adapted.clear()
            gc.collect()
            torch.cuda.empty_cache()


def signature_of(workspace: Workspace, paths: Iterable[str]) -> Signature:
    """Name, inode, size and time of change of every file: another one, another signature. paths: folders and files."""
    found = []
    for path in paths:
        try:
            root = workspace.read(path)
        except DataError:
            continue
        within = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        for file in [root] if root.is_file() else within:
            try:
                stat = file.stat()
            except FileNotFoundError:
                continue
            found.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _has_lora(network: Any) -> bool:
    return hasattr(network, "disable_adapter")


@contextmanager
def _without_lora(network: Any) -> Iterator[None]:
    """What peft's disable_adapter does, without its survey of all layers, which takes as long as writing a token."""
    network.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        network.base_model.enable_adapter_layers()


def _with_adapter(network: Any, adapter: Path, name: str) -> Any:
    """The network with this adapter among its own; the weights are the same objects."""
    from peft import PeftModel

    if not _has_lora(network):
        return PeftModel.from_pretrained(network, str(adapter), name, local_files_only=True).eval()
    if name not in network.peft_config:
        network.load_adapter(str(adapter), name)
    return network


def weights_bytes(folder: Path) -> int:
    """Size of the safetensors files of a model folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _silence_loading() -> None:
    """Progress bars and notes about optional kernels would run into the conversation."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft calls an older name
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
