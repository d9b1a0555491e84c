"""The engine behind chat, ask and the proxy: a question goes in, a grounded answer streams out.

    answerer = Answerer(config, Workspace())
    request = answerer.prepare("Who founded the mill Bako?", model="tuned")
    for piece in answerer.stream(request): ...

Reads data/<domain>/index, models/base/<model>, models/<domain>/{book_merged,rag_lora}; writes nothing but caches.
Nothing is loaded before it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Embedder, Model, Prompt, Retrieval
from stages.core.workspace import Workspace
from stages.prompts.renderer import Turn
from stages.retrieval.documents import Document
from stages.serving.finding import DocumentFinder, document_row
from stages.serving.models import LoadedModel, Models


@dataclass
class Config:
    """The section `chat` of params.yaml."""

    domain: str = MISSING
    model: Model = MISSING
    embedder: Embedder = MISSING
    prompt: Prompt = MISSING
    retrieval: Retrieval = MISSING
    kinds: list[str] = field(default_factory=list)
    top_k: int = MISSING
    max_distance: float = MISSING
    num_siblings: int = MISSING
    max_new_tokens: int = MISSING
    styles: list[str] = field(default_factory=list)  # names of style adapters
    sets: dict[str, str] = field(default_factory=dict)  # name -> what the names of its documents begin with

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.num_siblings < 0:
            raise ValueError("top_k must be at least 1 and num_siblings at least 0")
        if not 1 <= self.max_new_tokens < self.model.max_context_tokens:
            raise ValueError(
                f"max_new_tokens: {self.max_new_tokens} is not between 1 and the model's context of "
                f"{self.model.max_context_tokens} tokens"
            )


@dataclass(frozen=True)
class Request:
    """A question made ready for a model.

    What did not fit into the context: num_dropped_turns, num_dropped_documents, and num_without_siblings of the
    documents that are there.
    """

    question: str
    model: str
    documents: list[Document]
    prompt_ids: list[int]
    num_dropped_documents: int = 0
    num_without_siblings: int = 0
    num_dropped_turns: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer as a whole. elapsed_s: search and generation, without loading."""

    request: Request
    text: str
    num_completion_tokens: int
    elapsed_s: float

    def to_row(self) -> dict[str, Any]:
        """What `groundtune ask --json` prints."""
        return {
            "question": self.request.question,
            "answer": self.text,
            "model": self.request.model,
            "documents": [document_row(document) for document in self.request.documents],
            "prompt_tokens": len(self.request.prompt_ids),
            "completion_tokens": self.num_completion_tokens,
            "elapsed_s": round(self.elapsed_s, 3),
        }


def finder_of(config: Config, workspace: Workspace, kind: type[DocumentFinder] = DocumentFinder) -> DocumentFinder:
    """What finds documents as the configuration says; nothing is read yet."""
    of_index = (config.domain, config.embedder, config.retrieval, config.kinds)
    return kind(workspace, *of_index, config.top_k, config.max_distance, config.num_siblings)


class Answerer:
    """Puts search, prompt and model together. `finder` and `models` may be given, for tests and for sharing."""

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        finder: DocumentFinder | None = None,
        models: Models | None = None,
    ) -> None:
        self.config = config
        self.models = models or Models(workspace, config.model, config.prompt, config.domain, config.styles)
        self.finder = finder or finder_of(config, workspace)

    @property
    def choices(self) -> tuple[str, ...]:
        """The models that can answer."""
        return self.models.choices

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of documents that can be searched on their own."""
        return tuple(self.config.sets)

    @property
    def max_prompt_tokens(self) -> int:
        return self.config.model.max_context_tokens - self.config.max_new_tokens

    def load(self, model: str, use_documents: bool = True) -> None:
        """Loads now what would be loaded at the first question. Raises DataError where something is missing."""
        loaded = self.models.load(model)
        if use_documents and not loaded.own_prompt:
            self.finder.load()

    def prepare(
        self,
        question: str,
        model: str = "tuned",
        use_documents: bool = True,
        history: Sequence[Turn] = (),
        document_set: str = "",
    ) -> Request:
        """Finds documents, of `document_set` or ("") of all, and renders the prompt.

        What is too long goes in this order: the oldest turns; siblings, of the last document first; the last
        documents. Raises DataError for a question that is too long on its own, and for an empty one; ConfigError for a
        set that does not exist.
        """
        question = question.strip()
        if not question:
            raise DataError("the question is empty")
        loaded = self.models.load(model)
        use_documents = use_documents and not loaded.own_prompt
        documents = self.finder.find(question, self._below(document_set)) if use_documents else []
        return self._fit(loaded, question, model, documents, list(history))

    def _below(self, document_set: str) -> str:
        if document_set and document_set not in self.config.sets:
            raise ConfigError(f"no such set {document_set!r}; there is {', '.join(self.config.sets) or 'none'}")
        return self.config.sets.get(document_set, "")

    def _fit(self, loaded: LoadedModel, question: str, model: str, found: list[Document], turns: list[Turn]) -> Request:
        documents, num_turns = list(found), len(turns)
        while True:
            messages = loaded.renderer.messages(question, [document.text for document in documents], turns)
            prompt_ids = loaded.renderer.prompt_ids(messages)
            if len(prompt_ids) <= self.max_prompt_tokens:
                break
            if turns:
                turns.pop(0)
            elif documents:
                documents = shrunk(documents)
            else:
                raise DataError(self._too_long(len(prompt_ids)))
        return Request(
            question,
            model,
            documents,
            prompt_ids,
            num_dropped_documents=len(found) - len(documents),
            num_without_siblings=sum(document not in found for document in documents),
            num_dropped_turns=num_turns - len(turns),
        )

    def _too_long(self, num_tokens: int) -> str:
        return (
            f"the question is too long: a prompt of {num_tokens} tokens, where {self.max_prompt_tokens} fit "
            f"(model.max_context_tokens {self.config.model.max_context_tokens} less chat.max_new_tokens "
            f"{self.config.max_new_tokens}); shorten it"
        )

    def stream(self, request: Request) -> Iterator[str]:
        """The answer in pieces, as the model writes it."""
        from stages.generation.decoding import stream

        with self.models.use(request.model) as loaded:
            yield from stream(loaded.network, loaded.tokenizer, request.prompt_ids, self.config.max_new_tokens)

    def answer(
        self, question: str, model: str = "tuned", use_documents: bool = True, history: Sequence[Turn] = ()
    ) -> Answer:
        """`prepare` and `stream` in one."""
        self.load(model, use_documents)
        start_s = time.perf_counter()
        request = self.prepare(question, model, use_documents, history)
        text = "".join(self.stream(request)).strip()
        elapsed_s = time.perf_counter() - start_s
        return Answer(request, text, self.num_tokens(text, model), elapsed_s)

    def num_tokens(self, text: str, model: str) -> int:
        return len(self.models.load(model).tokenizer(text, add_special_tokens=False)["input_ids"])


def shrunk(documents: list[Document]) -> list[Document]:
    """One step shorter: the last document that has siblings loses them; where none has, the last one goes."""
    for place in reversed(range(len(documents))):
        if len(documents[place].records) > 1:
            alone = replace(documents[place], records=(documents[place].hit,))
            return [*documents[:place], alone, *documents[place + 1 :]]
    return documents[:-1]
