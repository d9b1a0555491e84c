"""The models that a conversation can switch between, each loaded when it is first asked for.

    tuned   the base with the book merged in, and the RAG-context LoRA
    book    the same without the LoRA
    base    the base as it came
    and each style adapter of the domain by its name: the book model with that adapter in place of the RAG LoRA
    NAME@v1.0.0   a registered version of an exported model (stages.serving.releases)

All but base share one set of weights: adapters are switched, not loaded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Model, Prompt
from stages.core.workspace import Workspace
from stages.generation.loading import base_folder, check_adapter, load_model, load_tokenizer, resolve_base
from stages.prompts.renderer import Renderer
from stages.serving.releases import files_of, find, is_release

CHOICES = ("tuned", "book", "base")
TUNED_ADAPTER = "default"  # as PEFT calls the first one


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode with the tokenizer and renderer that belong to it."""

    network: Any
    tokenizer: Any
    renderer: Renderer


class Models:
    """Loads on demand. Two sets of weights stay side by side where memory allows, else the older one goes."""

    def __init__(
        self, workspace: Workspace, model: Model, prompt: Prompt, domain: str, styles: Sequence[str] = ()
    ) -> None:
        self.workspace, self.model, self.prompt, self.domain = workspace, model, prompt, domain
        self.styles = tuple(styles)
        self.choices = (*CHOICES, *styles)
        self._loaded: dict[str, LoadedModel] = {}

    def load(self, choice: str) -> LoadedModel:
        """Raises DataError where files are missing or the LoRA was trained with another prompt; ConfigError for a
        choice that does not exist."""
        if is_release(choice):
            return self._release(choice)
        if choice not in self.choices:
            raise ConfigError(f"model: {choice!r} is not one of {', '.join(self.choices)}")
        weights = "base" if choice == "base" else "book"
        needs_lora = choice not in ("base", "book")
        adapter = self._adapter(required=needs_lora) if weights == "book" else None
        loaded = self._loaded.get(weights)
        if loaded is None or (needs_lora and not _has_lora(loaded)):
            loaded = self._loaded[weights] = self._read(weights, adapter)
        if choice in self.styles:
            adapter = self.workspace.read(f"models/{self.domain}/styles/{choice}")
        if needs_lora and adapter is not None:
            check_adapter(adapter, loaded.renderer.hash)
        if choice in self.styles and choice not in loaded.network.peft_config:
            loaded.network.load_adapter(str(adapter), choice)
        return loaded

    @contextmanager
    def use(self, choice: str) -> Iterator[LoadedModel]:
        """The model as `choice` means it, until the block ends: for `book` with the LoRA switched off."""
        loaded = self.load(choice)
        if is_release(choice):
            yield loaded
            return
        if _has_lora(loaded):
            loaded.network.set_adapter(choice if choice in self.styles else TUNED_ADAPTER)
        with loaded.network.disable_adapter() if choice == "book" and _has_lora(loaded) else nullcontext():
            yield loaded

    def fresh(self) -> Models:
        """The same models with nothing loaded: they are read from the files as they are by then."""
        other = copy(self)
        other._loaded = {}
        return other

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Path, size and time of change of every file that could be loaded: another one where any was replaced."""
        own = self.workspace.inputs / "models" / self.domain
        folders = [self.workspace.inputs / base_folder(self.model), own / "book_merged", own / "rag_lora"]
        folders += [own / "styles" / style for style in self.styles]
        files = sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir())
        return tuple((str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in files)

    def _adapter(self, required: bool) -> Path | None:
        try:
            return self.workspace.read(f"models/{self.domain}/rag_lora")
        except DataError:
            if required:
                raise
            return None

    def _read(self, weights: str, adapter: Path | None) -> LoadedModel:
        if weights == "base":
            folder = resolve_base(self.workspace, self.model)
        else:
            folder = self.workspace.read(f"models/{self.domain}/book_merged")
        self._make_room(folder)
        _silence_loading()
        tokenizer = load_tokenizer(folder)
        renderer = Renderer(self.prompt, tokenizer)
        return LoadedModel(load_model(folder, self.model, adapter), tokenizer, renderer)

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
        self._loaded[spec] = LoadedModel(load_model(folder, release.model), tokenizer, renderer)
        return self._loaded[spec]

    def _make_room(self, folder: Path) -> None:
        """Forgets what is loaded where `folder` would not fit beside it."""
        from stages.serving.machine import free_model_memory_bytes

        if self._loaded and weights_bytes(folder) > free_model_memory_bytes():
            import gc

            import torch

            self._loaded.clear()
            gc.collect()
            torch.cuda.empty_cache()


def _has_lora(loaded: LoadedModel) -> bool:
    return hasattr(loaded.network, "disable_adapter")


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
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
