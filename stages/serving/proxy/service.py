"""Everything that the routes use, started and closed together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from stages.core.config import parse_section
from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.serving.finding import DocumentFinder
from stages.serving.predicting import Config as PredictConfig
from stages.serving.predicting import PairPredictor
from stages.serving.proxy.auth import Keys, Visitors, read_keys
from stages.serving.proxy.catalogue import Catalogue, ChatSections
from stages.serving.proxy.completions import Completions
from stages.serving.proxy.limits import Gate
from stages.serving.proxy.numbers import Numbers
from stages.serving.proxy.settings import Config
from stages.serving.proxy.stats import Stats

LOG = logging.getLogger("groundtune.serve")


class Service:
    """Raises ConfigError for settings that do not go together, before anything is loaded."""

    def __init__(
        self,
        config: Config,
        chat_section: ChatSections,
        predict_section: Callable[[], Mapping[str, Any]] | None,
        workspace: Workspace,
        finder: type[DocumentFinder] = DocumentFinder,
    ) -> None:
        self.config, self.workspace = config, workspace
        self.keys: Keys = read_keys(config)
        self.visitors = Visitors.of(config)
        self.stats = Stats(config.stats)
        self.gate = Gate(config.limits)
        self.catalogue = Catalogue(config, chat_section, workspace, finder)
        self.completions = Completions(config, self.catalogue, self.gate, self.stats)
        section = predict_section if config.predict else None
        self._predict_config = parse_section(PredictConfig, section(), "predict") if section else None
        self.numbers: Numbers | None = None
        if self._predict_config is not None and (flaw := self._find_numbers(self._predict_config)):
            LOG.warning("/v1/predict is not served: %s", flaw)

    async def start(self) -> None:
        """Raises DataError for what is missing, or does not fit."""
        await self.catalogue.start()

    async def close(self) -> None:
        await self.catalogue.close()
        if self.numbers is not None:
            await self.numbers.close()

    def to_stats(self, is_admin: bool) -> dict[str, Any]:
        """What /stats says."""
        retrievers = [domain.retriever for domain in self.catalogue.domains.values()]
        self.stats.num_reload_errors = self.catalogue.num_reload_errors
        if self.numbers is not None:
            self.stats.num_reload_errors += self.numbers.num_reload_errors
        return {
            **self.stats.to_row(is_admin),
            "num_active": self.gate.num_active,
            "num_waiting": self.gate.num_waiting,
            "chunks": {domain.name: domain.num_chunks for domain in self.catalogue.domains.values()},
            "query_cache": {
                "num_cached": sum(retriever.num_cached for retriever in retrievers),
                "num_embedded": sum(retriever.num_embedded for retriever in retrievers),
            },
        }

    def find_numbers(self) -> Numbers | None:
        """`numbers`; looked for again as long as there are none, as the task may have been evaluated by now."""
        if self.numbers is None and self._predict_config is not None and not self._find_numbers(self._predict_config):
            LOG.warning("/v1/predict is served from now on")
        return self.numbers

    def _find_numbers(self, config: PredictConfig) -> str:
        """Why there are none; "" where there are."""
        try:
            self.numbers = Numbers(PairPredictor(config, self.workspace))
        except DataError as error:
            return str(error)
        return ""
