"""The models that clients may ask for, by name, and their replacement by newer ones while the server runs.

tuned, book, base, <style>      of the first domain, in this process
<domain>/tuned ...              of another domain
demo-rag@v1.1.0, demo@latest    a registered version of a domain's export, in this process
demo                            whatever serve.models says that `demo` is
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stages.core.config import parse_section
from stages.core.errors import DataError, GroundtuneError
from stages.core.workspace import Workspace
from stages.prompts.renderer import Renderer
from stages.serving.answering import Config as ChatConfig
from stages.serving.finding import DocumentFinder
from stages.serving.models import CHOICES, Models, signature_of
from stages.serving.proxy.domains import Checked, ServedDomain, paths_of
from stages.serving.proxy.errors import ApiError
from stages.serving.proxy.settings import Config, ServedModel
from stages.serving.proxy.upstream import Upstream
from stages.serving.proxy.upstream_local import LocalUpstream
from stages.serving.proxy.upstream_openai import OpenAIUpstream
from stages.serving.proxy.versions import Version, Versions, unknown_model
from stages.serving.releases import files_of, find, is_release

LOG = logging.getLogger("groundtune.serve")

TAGS = (".git/refs/tags", ".git/packed-refs")

ChatSections = Callable[[str], Mapping[str, Any]]  # a domain's name -> its section `chat`


@dataclass(frozen=True)
class Entry:
    """A model that can be asked. upstream_model: its name there."""

    name: str
    domain: ServedDomain
    upstream_name: str
    upstream: Upstream
    upstream_model: str
    renderer: Renderer | None  # None: only the upstream knows it
    documents: bool
    created: int = field(default_factory=lambda: int(time.time()))
    limit_tokens: int = 0  # of a server that takes less than the model does

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together."""
        of_model = self.domain.config.model.max_context_tokens
        return min(of_model, self.limit_tokens or of_model)


class Catalogue:
    """num_reload_errors: newer versions that could not be loaded; the older ones went on."""

    def __init__(
        self,
        config: Config,
        chat_section: ChatSections,
        workspace: Workspace,
        finder: type[DocumentFinder] = DocumentFinder,
    ) -> None:
        self.config, self.workspace, self._finder = config, workspace, finder
        self.chats = {name: parse_section(ChatConfig, chat_section(name), f"chat of {name}") for name in config.domains}
        self.remotes = {
            name: OpenAIUpstream(upstream) for name, upstream in config.upstreams.items() if upstream.kind == "openai"
        }
        self.locals = self._locals()
        self.domains: dict[str, ServedDomain] = {}
        self.entries: dict[str, Entry] = {}
        self.num_reload_errors = 0
        self.versions = Versions(workspace, config.domains)
        self._checked: dict[str, Checked] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads everything. Raises DataError for the first thing that is missing or does not fit."""
        for name in self.config.domains:
            await self._load(name, await self._signature(name))
        if self.config.watch_s:
            self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        for domain in self.domains.values():
            await domain.retire()
        upstreams: list[Upstream] = [*self.remotes.values(), *self.locals.values()]
        for upstream in upstreams:
            await upstream.close()

    async def entry(self, name: str) -> Entry:
        """Raises ApiError (404)."""
        if name in self.entries:
            return self.entries[name]
        if is_release(name) and self.locals:
            return self._of_version(await self.versions.get(name))
        raise unknown_model()

    async def listed(self) -> list[Entry]:
        """Every model, and the registered versions that can be asked for beside them."""
        versions = await self.versions.merged() if self.locals else []
        return [*self.entries.values(), *map(self._of_version, versions)]

    def _of_version(self, version: Version) -> Entry:
        """With the documents of its domain as they are now."""
        spec, created = version.release.spec, int(version.release.created.timestamp())
        domain, local = self.domains[version.domain], self.locals[version.domain]
        documents = version.documents and domain.has_index
        return Entry(spec, domain, self._local_name(), local, spec, None, documents, created)

    def domain(self, name: str | None) -> ServedDomain:
        """The domain of this name, or the first one. Raises ApiError (404)."""
        wanted = name or self.config.domains[0]
        if wanted not in self.domains:
            raise ApiError(404, "domain_not_found", f"no such domain; there is {', '.join(self.domains)}", "domain")
        return self.domains[wanted]

    async def _load(self, name: str, signature: Any) -> None:
        """Puts the domain as its files are now in the place of the one that is served."""
        fresh = ServedDomain(self.chats[name], self.workspace, self._finder)
        try:
            entries = await asyncio.to_thread(self._entries, fresh)
            if any(entry.documents for entry in entries.values()) or not entries:
                await fresh.load_index()
        except BaseException:
            await fresh.retire()
            raise
        stale = self.domains.get(name)
        self.domains[name] = fresh
        others = {key: entry for key, entry in self.entries.items() if entry.domain.name != name}
        self.entries = {**others, **entries}
        self._checked[name] = Checked(signature, signature)
        if stale is not None:
            await stale.retire()

    def _entries(self, domain: ServedDomain) -> dict[str, Entry]:
        wanted = dict(self._wanted(domain))
        optional = not self.config.models
        entries, missing = {}, []
        for name, model in wanted.items():
            try:
                entries[name] = self._entry(name, model, domain)
            except GroundtuneError as error:
                if not optional or name in self.entries:  # a rebuild deletes what it makes anew
                    raise
                missing.append(f"{name}: {error}")
        if optional and not entries:
            raise DataError(f"domain {domain.name}: no model to serve\n" + "\n".join(missing))
        for line in missing:
            LOG.warning("not served: %s", line)
        return entries

    def _wanted(self, domain: ServedDomain) -> Iterator[tuple[str, ServedModel]]:
        first = self.config.domains[0]
        if self.config.models:
            for name, model in self.config.models.items():
                if (model.domain or first) == domain.name:
                    yield name, model
            return
        for choice in (*CHOICES, *domain.config.styles):
            name = choice if domain.name == first else f"{domain.name}/{choice}"
            yield name, ServedModel(self._local_name(), domain.name, choice)

    def _entry(self, name: str, model: ServedModel, domain: ServedDomain) -> Entry:
        upstream_model = model.model or name
        remote = self.remotes.get(model.upstream)
        if remote is not None:
            renderer = domain.remote_renderer(model.files)
            documents = _documents(model, renderer, domain)
            entry = Entry(name, domain, model.upstream, remote, upstream_model, renderer, documents)
            return replace(entry, limit_tokens=model.context_tokens)
        choices = (*CHOICES, *domain.config.styles)
        local = self.locals[domain.name]
        if is_release(upstream_model):
            release = find(upstream_model, self.workspace, domain.name)
            documents = model.documents and not release.has_own_prompt(files_of(release, self.workspace))
            return Entry(name, domain, model.upstream, local, release.spec, None, documents)
        if upstream_model not in choices:
            raise DataError(f"serve.models.{name}.model: {upstream_model!r} is not one of {', '.join(choices)}")
        renderer = domain.local_renderer(upstream_model)
        documents = _documents(model, renderer, domain)
        return Entry(name, domain, model.upstream, local, upstream_model, renderer, documents)

    def _local_name(self) -> str:
        return next((name for name, upstream in self.config.upstreams.items() if upstream.kind == "local"), "")

    def _locals(self) -> dict[str, LocalUpstream]:
        """One engine a domain, where there is an upstream that is `local`."""
        if not self._local_name():
            return {}
        settings = self.config.upstreams[self._local_name()]
        num_requests = self.config.limits.max_concurrent
        return {
            name: LocalUpstream(
                Models(self.workspace, chat.model, chat.prompt, name, chat.styles), settings, num_requests
            )
            for name, chat in self.chats.items()
        }

    async def _signature(self, name: str) -> Any:
        models = self.config.models.values()
        others = [model.files for model in models if model.files]
        if any(is_release(model.model) for model in models):  # NAME@latest
            others += TAGS
        return await asyncio.to_thread(signature_of, self.workspace, paths_of(self.chats[name], others))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.watch_s)
            self.versions.forget()
            for name in self.config.domains:
                await self._look(name)

    async def _look(self, name: str) -> None:
        """Loads a domain again whose files have changed and are no longer being written."""
        signature, checked = await self._signature(name), self._checked[name]
        settled = signature == checked.seen and signature not in (checked.loaded, checked.refused)
        self._checked[name] = replace(checked, seen=signature)
        if not settled:
            return
        try:
            await self._load(name, signature)
            settle()
            LOG.warning("%s: loaded again, as its files have changed", name)
        except Exception as error:
            self.num_reload_errors += 1
            self._checked[name] = replace(self._checked[name], refused=signature)
            LOG.error("%s: the newer version cannot be loaded, the older one goes on: %s", name, error)


def _documents(model: ServedModel, renderer: Renderer, domain: ServedDomain) -> bool:
    """Whether documents are looked up: not where the model was trained under a prompt of its own, without them."""
    return model.documents and renderer.prompt == domain.config.prompt


def settle() -> None:
    """Frees what was replaced. What there is now is not looked at again, which would stop all streams for 0.4 s."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
