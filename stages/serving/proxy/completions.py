"""A chat up to the upstream's first word: what was asked for, documents, prompt.

Nothing is sent before the upstream has begun to write, so that its failure has an HTTP status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from stages.prompts.renderer import Renderer
from stages.retrieval.documents import Document
from stages.serving.finding import Wanted
from stages.serving.proxy.catalogue import Catalogue, Entry
from stages.serving.proxy.conversation import Conversation, read_conversation
from stages.serving.proxy.delivery import Answering
from stages.serving.proxy.domains import ServedDomain
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.limits import Gate
from stages.serving.proxy.rag import Prompt, fit, source_row
from stages.serving.proxy.schema import ChatRequest, RagOptions, RetrieveRequest
from stages.serving.proxy.settings import Config
from stages.serving.proxy.stats import Recent, Stats
from stages.serving.proxy.upstream import Job, Piece, Sampling, counted


class Completions:
    """Answers chats."""

    def __init__(self, config: Config, catalogue: Catalogue, gate: Gate, stats: Stats) -> None:
        self.config, self.catalogue, self.gate, self.stats = config, catalogue, gate, stats

    async def begin(self, request: ChatRequest) -> Answering:
        """Everything up to the first piece. Raises ApiError. Who gets it closes `resources`."""
        started_s = time.monotonic()
        self._check_limits(request)
        async with AsyncExitStack() as stack:
            entry = await self.catalogue.entry(request.model)
            await stack.enter_async_context(entry.domain.used())
            conversation = read_conversation(request.messages, entry.upstream.takes_images)
            conversation, num_ignored = self._without_system(conversation, entry, request.rag)
            sampling = self._sampling(request, entry)
            await stack.enter_async_context(self.gate.place())
            renderer = await entry.upstream.renderer(entry.upstream_model) or entry.renderer
            assert renderer is not None  # of a server's models the catalogue knows it
            prompt = await self._prompt(entry, renderer, conversation, request.rag, sampling.max_new_tokens)
            recent = self._recent(request, conversation, prompt)
            job = Job(entry.upstream_model, prompt.messages, prompt.prompt_ids, sampling)
            num_tokens = partial(_num_tokens, renderer.tokenizer)
            written = counted(entry.upstream.stream(job), len(prompt.prompt_ids), num_tokens)
            pieces = await stack.enter_async_context(aclosing(written))
            first = await self._first(pieces, recent)
            self.stats.first_token_s.append(time.monotonic() - started_s)
            report = _report(entry, renderer, prompt, num_ignored)
            return Answering(request, prompt, report, recent, stack.pop_all(), first, pieces, started_s)
        raise AssertionError  # the stack swallows nothing

    async def retrieve(self, request: RetrieveRequest) -> dict[str, Any]:
        """Documents alone."""
        options = request.model_dump(exclude={"query", "domain"}, exclude_none=True)
        domain = self.catalogue.domain(request.domain)
        domain.check_index()
        async with domain.used(), self.gate.place():
            found = await self._find(domain, request.query, RagOptions(**options), place="")
        return {"domain": domain.name, "documents": [source_row(document) for document in found]}

    async def _prompt(
        self,
        entry: Entry,
        renderer: Renderer,
        conversation: Conversation,
        options: RagOptions,
        max_new_tokens: int,
    ) -> Prompt:
        off = options.off or not entry.documents
        found = [] if off else await self._find(entry.domain, conversation.question, options)
        room = entry.context_tokens - max_new_tokens
        return await asyncio.to_thread(fit, renderer, conversation, found, room)

    async def _find(self, domain: ServedDomain, query: str, options: RagOptions, place: str = "rag.") -> list[Document]:
        """place: where the options stand in the request."""
        wanted = self._wanted(domain, options, place)
        start_s = time.monotonic()
        found = await domain.retriever.find(query.strip(), wanted)
        self.stats.retrieval_s.append(time.monotonic() - start_s)
        return found

    def _wanted(self, domain: ServedDomain, options: RagOptions, place: str) -> Wanted:
        config, limits = domain.config, self.config.limits
        top_k = config.top_k if options.top_k is None else options.top_k
        siblings = config.num_siblings if options.siblings is None else options.siblings
        if top_k > limits.max_top_k and options.top_k:
            raise invalid(f"at most {limits.max_top_k}", f"{place}top_k")
        if siblings > limits.max_siblings and options.siblings:
            raise invalid(f"at most {limits.max_siblings}", f"{place}siblings")
        if options.set is not None and options.set not in config.sets:
            raise invalid("no such set of documents", f"{place}set", "unknown_set")
        distance = config.max_distance if options.max_distance is None else options.max_distance
        below = config.sets[options.set] if options.set else ""
        return Wanted(top_k, distance, siblings, below, _sources(domain, options, place))

    def _without_system(
        self, conversation: Conversation, entry: Entry, options: RagOptions
    ) -> tuple[Conversation, int]:
        """A client's own system message counts only where no documents are asked for."""
        if not conversation.system or options.off or not entry.documents:
            return conversation, 0
        if self.config.client_system == "refuse":
            raise invalid(
                "the model was trained with its own system message, which holds the documents; leave yours out, or "
                'send "rag": {"off": true}',
                "messages[0].role",
                "system_not_supported",
            )
        return replace(conversation, system=""), 1

    def _check_limits(self, request: ChatRequest) -> None:
        limits = self.config.limits
        if len(request.messages) > limits.max_messages:
            raise invalid(f"at most {limits.max_messages} messages", "messages", "too_many_messages")
        if (request.n or 1) > limits.max_choices:
            raise invalid(f"at most {limits.max_choices}", "n")
        for name in ("max_tokens", "max_completion_tokens"):
            if (getattr(request, name) or 0) > limits.max_new_tokens:
                raise invalid(f"at most {limits.max_new_tokens}", name)

    def _sampling(self, request: ChatRequest, entry: Entry) -> Sampling:
        config = entry.domain.config
        num = request.max_completion_tokens or request.max_tokens or config.max_new_tokens
        stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
        return Sampling(
            num,
            request.temperature or 0.0,
            request.top_p,
            request.n or 1,
            tuple(stop),
            request.seed,
            request.presence_penalty,
            request.frequency_penalty,
        )

    def _recent(self, request: ChatRequest, conversation: Conversation, prompt: Prompt) -> Recent:
        question = conversation.question
        nearest = prompt.documents[0].distance if prompt.documents else None
        text = question if self.config.stats.query_text else ""
        recent = Recent(time.time(), request.model, len(prompt.documents), nearest, len(question), text)
        self.stats.recent.append(recent)
        return recent

    async def _first(self, pieces: AsyncGenerator[Piece, None], recent: Recent) -> Piece:
        try:
            return await anext(pieces)
        except ApiError as error:
            recent.status = error.status
            raise


def _num_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _sources(domain: ServedDomain, options: RagOptions, place: str) -> tuple[str, ...]:
    """What the request restricts the search to; () is nothing. Raises ApiError for a name that is not there."""
    if isinstance(options.sources, bool):
        return ()
    finder = domain.retriever.finder
    if not finder.sources.issuperset(options.sources):
        there = f"there is {', '.join(finder.kinds)}, and each document by its name"
        raise invalid(f"no such source; {there}", f"{place}sources", "unknown_source")
    return tuple(sorted(set(options.sources)))


def _report(entry: Entry, renderer: Renderer, prompt: Prompt, num_ignored: int) -> dict[str, Any]:
    return {
        "domain": entry.domain.name,
        "template": renderer.hash,
        "num_documents": len(prompt.documents),
        "num_dropped_documents": prompt.num_found - len(prompt.documents),
        "num_without_siblings": prompt.num_without_siblings,
        "num_ignored_messages": num_ignored,
    }
