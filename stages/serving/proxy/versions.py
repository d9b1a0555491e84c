"""Registered versions of the served domains' exports: `demo-rag@v1.1.0`, `demo@latest`.

Reads Git's tags and, the first time that a version is asked for, its files from DVC's cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from stages.core.errors import DataError, GroundtuneError
from stages.core.workspace import Workspace
from stages.serving.proxy.errors import ApiError
from stages.serving.releases import Release, files_of, find, releases

LOG = logging.getLogger("groundtune.serve")


@dataclass(frozen=True)
class Version:
    """documents: whether it was trained under its domain's prompt, which holds them."""

    release: Release
    documents: bool = True

    @property
    def domain(self) -> str:
        domain: str = self.release.settings["domain"]
        return domain


class Versions:
    """What was found is remembered until `forget`: to read the tags takes longer than to embed a question."""

    def __init__(self, workspace: Workspace, domains: Sequence[str]) -> None:
        self.workspace, self.domains = workspace, domains
        self._found: dict[str, Version] = {}
        self._merged: list[Version] | None = None

    async def get(self, name: str) -> Version:
        """NAME@VERSION; `demo@v1.0.0` is the tuned model of demo. Raises ApiError: 404, 503 where files are missing."""
        if name not in self._found:
            self._found[name] = await asyncio.to_thread(self._find, name)
        return self._found[name]

    async def merged(self) -> list[Version]:
        """All that can be served, the newest of a name first: not those of adapters alone."""
        if self._merged is None:
            self._merged = await asyncio.to_thread(self._list)
        return self._merged

    def forget(self) -> None:
        self._found, self._merged = {}, None

    def _find(self, name: str) -> Version:
        export, _, version = name.partition("@")
        for domain in self.domains:
            with suppress(GroundtuneError):  # it means nothing of this domain
                release = find(f"tuned@{version}" if export == domain else name, self.workspace, domain)
                if release.settings["domain"] == domain:
                    return self._with_files(release)
        raise unknown_model()

    def _with_files(self, release: Release) -> Version:
        try:
            return Version(release, not release.has_own_prompt(files_of(release, self.workspace)))
        except DataError as error:
            LOG.error("%s: %s", release.spec, error)
            raise ApiError(503, "model_unavailable", "this version cannot be loaded; see the server's log") from error

    def _list(self) -> list[Version]:
        try:
            found = [Version(release) for release in releases(self.workspace.inputs)]
            return [v for v in found if v.domain in self.domains and v.release.settings.get("merge", True)]
        except DataError as error:  # such as a workspace without Git
            LOG.info("no registered versions: %s", error)
            return []


def unknown_model() -> ApiError:
    """Of a name that clients made up."""
    return ApiError(404, "model_not_found", "no such model; /v1/models lists them", "model")
