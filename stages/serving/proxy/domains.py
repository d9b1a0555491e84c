"""A domain as it is served: its index, its models, its prompt; loaded as a whole and replaced as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.workspace import Workspace
from stages.generation.loading import (
    ADAPTER_NOTE,
    base_folder,
    check_adapter,
    load_tokenizer,
    prompt_of,
    read_adapter_note,
    resolve_base,
)
from stages.prompts.renderer import Renderer
from stages.serving.answering import Config as ChatConfig
from stages.serving.answering import finder_of
from stages.serving.finding import DocumentFinder
from stages.serving.models import UNTUNED, Models, Signature
from stages.serving.proxy.errors import ApiError
from stages.serving.proxy.rag import Retriever


class ServedDomain:
    """What requests of one domain use. Nothing is read before `load`."""

    def __init__(self, config: ChatConfig, workspace: Workspace, finder: type[DocumentFinder]) -> None:
        self.config, self.workspace, self.name = config, workspace, config.domain
        self.retriever = Retriever(finder_of(config, workspace, finder))
        self._tokenizers: dict[Path, Any] = {}
        self.has_index = self._retired = False
        self._num_users = 0

    async def load_index(self) -> None:
        """Raises DataError where there is none, or it was made with another embedder."""
        await self.retriever.load()
        self.has_index = True

    def check_index(self) -> None:
        """Raises ApiError (404) where no model of this domain looks documents up, so that none was loaded."""
        if not self.has_index:
            raise ApiError(404, "no_index", "this domain is served without documents", "domain")

    @property
    def num_chunks(self) -> int:
        """Records of the index; 0 where no model of this domain looks any up."""
        return self.retriever.finder.num_records if self.has_index else 0

    def local_renderer(self, choice: str) -> Renderer:
        """The renderer of a model in this process. DataError where its files are missing, or its adapter was trained
        with another prompt."""
        config = self.config
        models = Models(self.workspace, config.model, config.prompt, self.name, config.styles)
        if choice in UNTUNED:
            return Renderer(config.prompt, self._tokenizer(models.folder(choice)))
        adapter = models.adapter(choice)
        return adapter.renderer(self._tokenizer(models.folder(adapter.weights)))

    def remote_renderer(self, files: str) -> Renderer:
        """The renderer of a model that a server holds. files: a folder with its tokenizer; "": the base model's.

        DataError where an adapter of that folder was trained with another prompt.
        """
        folder = self.workspace.read(files) if files else resolve_base(self.workspace, self.config.model)
        adapters = sorted(note.parent for note in folder.rglob(ADAPTER_NOTE)) if files else []
        prompt = prompt_of(read_adapter_note(adapters[0]), self.config.prompt) if adapters else self.config.prompt
        renderer = Renderer(prompt, self._tokenizer(folder))
        for adapter in adapters:
            check_adapter(adapter, renderer.hash)
        return renderer

    def _tokenizer(self, folder: Path) -> Any:
        if folder not in self._tokenizers:
            self._tokenizers[folder] = load_tokenizer(folder)
        return self._tokenizers[folder]

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """While the block runs, the domain stays loaded, also when a newer one has taken its place."""
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1
            if self._retired and not self._num_users:
                await self.retriever.close()

    async def retire(self) -> None:
        """Lets go of everything once nobody uses it."""
        self._retired = True
        if not self._num_users:
            await self.retriever.close()


def paths_of(config: ChatConfig, others: Iterable[str]) -> list[str]:
    """What a domain is made of, for `signature_of`. others: beside its own files, as of models that servers hold."""
    models = f"models/{config.domain}"
    own = [f"data/{config.domain}/index", *(f"{models}/{name}" for name in ("book_merged", "rag_lora", "styles"))]
    return [*own, base_folder(config.model), *others]


@dataclass(frozen=True)
class Checked:
    """A look at a domain's files: the same one twice means that nobody is writing them."""

    seen: Signature
    loaded: Signature
    refused: Signature = ()
