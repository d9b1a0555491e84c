"""Documents for a conversation: looked up together with those of others, and fitted into the context."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.generation.loading import load_tokenizer
from stages.prompts.renderer import Renderer
from stages.retrieval.documents import Document
from stages.retrieval.embedder_files import resolve_embedder
from stages.retrieval.embedding import Float32
from stages.serving.answering import shrunk
from stages.serving.finding import DocumentFinder, Wanted, document_row
from stages.serving.proxy.batching import Batcher
from stages.serving.proxy.conversation import Conversation
from stages.serving.proxy.errors import invalid

MAX_BATCH = 32
CACHED_QUERIES = 4096  # 6 MB of vectors of 384 numbers


@dataclass(frozen=True)
class Prompt:
    """Messages and the token ids that they become; documents: those that fitted."""

    messages: list[dict[str, Any]]
    prompt_ids: list[int]
    documents: list[Document]
    num_found: int = 0
    num_without_siblings: int = 0


class Retriever:
    """Searches one index in a thread of its own; queries that come at the same time are embedded and searched together.

    The vectors of the last queries are kept: num_cached counts queries that needed no embedding, num_embedded the
    others.
    """

    def __init__(self, finder: DocumentFinder) -> None:
        self.finder = finder
        self.num_cached = self.num_embedded = 0
        self._tokenizer: Any = None
        self._vectors: OrderedDict[str, Float32] = OrderedDict()
        self._batches: Batcher[tuple[str, Wanted], list[Document]] = Batcher(self._find_all, MAX_BATCH, "retrieval")

    async def load(self) -> None:
        """Index and embedder. Raises DataError as DocumentFinder.load."""
        await self._batches.call(self._load)

    async def find(self, query: str, wanted: Wanted) -> list[Document]:
        """Nearest first; [] where nothing is near."""
        return await self._batches.run((query, wanted))

    async def embed(self, texts: Sequence[str], input_type: str) -> tuple[Float32, int]:
        """float32[N, D] for texts of type query or passage, and how many tokens they have."""
        return await self._batches.call(lambda: self._embed(texts, input_type))

    async def close(self) -> None:
        await self._batches.close()

    def _load(self) -> None:
        self.finder.load()
        _use_one_thread()
        self.finder.encoder.encode_queries(["the first one takes longer"])

    def _embed(self, texts: Sequence[str], input_type: str) -> tuple[Float32, int]:
        encoder = self.finder.encoder
        encode = encoder.encode_queries if input_type == "query" else encoder.encode_passages
        return encode(texts), self._num_tokens(texts)

    def _num_tokens(self, texts: Sequence[str]) -> int:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(resolve_embedder(self.finder.embedder))
        rows = self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return sum(len(row) for row in rows)

    def _find_all(self, asked: Sequence[tuple[str, Wanted]]) -> list[list[Document]]:
        vectors = self._query_vectors([query for query, _ in asked])
        found: dict[tuple[str, Wanted], list[Document]] = {}
        for wanted in {wanted for _, wanted in asked}:
            queries = list(dict.fromkeys(query for query, its in asked if its == wanted))
            nearest = self.finder.find_near(queries, np.stack([vectors[query] for query in queries]), wanted)
            found |= {(query, wanted): documents for query, documents in zip(queries, nearest, strict=True)}
        return [found[one] for one in asked]

    def _query_vectors(self, queries: Sequence[str]) -> dict[str, Float32]:
        known = {query: self._vectors[query] for query in queries if query in self._vectors}
        new = list(dict.fromkeys(query for query in queries if query not in known))
        self.num_embedded += len(new)
        self.num_cached += len(queries) - len(new)
        if new:
            known |= dict(zip(new, self.finder.encoder.encode_queries(new), strict=True))
        for query in queries:
            self._vectors[query] = known[query]
            self._vectors.move_to_end(query)
        while len(self._vectors) > CACHED_QUERIES:
            self._vectors.popitem(last=False)
        return known


def _use_one_thread() -> None:
    """Gives this thread one OpenMP thread, unless OMP_NUM_THREADS says how many.

    A question is little work. And where threads of a process have more OpenMP threads together than there are cores,
    libgomp has all of them sleep at each barrier instead of spinning: a small model in the engine's thread would write
    half as fast.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # or torch would set its own number at its first work here
    threadpool_limits(1, user_api="openmp")


def fit(renderer: Renderer, conversation: Conversation, found: Sequence[Document], max_tokens: int) -> Prompt:
    """The prompt in at most `max_tokens`: siblings go first, then documents, the furthest before the nearer.

    A client's own words are never shortened: ApiError (400) where they do not fit without any document. A system
    message of the client's stands in the place of the template's, and only where there are no documents.
    """
    documents = list(found)
    while True:
        messages = renderer.messages(conversation.question, [d.text for d in documents], conversation.turns)
        if conversation.system and not documents:
            messages[0] = {"role": "system", "content": renderer.escape(conversation.system)}
        prompt_ids = renderer.prompt_ids(messages)
        if len(prompt_ids) <= max_tokens:
            break
        if not documents:
            message = f"the prompt has {len(prompt_ids)} tokens; beside the answer {max(0, max_tokens)} fit"
            raise invalid(message, "messages", "context_length_exceeded")
        documents = shrunk(documents)
    num_alone = sum(document not in found for document in documents)
    return Prompt(_with_images(messages, conversation), prompt_ids, documents, len(found), num_alone)


def _with_images(messages: list[dict[str, str]], conversation: Conversation) -> list[dict[str, Any]]:
    if not conversation.images:
        return list(messages)
    *earlier, last = messages
    text = {"type": "text", "text": last["content"]}
    return [*earlier, {"role": "user", "content": [*conversation.images, text]}]


def source_row(document: Document) -> dict[str, Any]:
    """As a source stands in an answer."""
    return {**document_row(document), "siblings": document.ids}
