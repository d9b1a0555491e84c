"""From a question and its documents to an example that fits the length a model is trained at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.core.ledger import Ledger
from stages.knowledge.fitting import fit_documents
from stages.knowledge.records import QA, Example
from stages.prompts.renderer import Renderer
from stages.retrieval.training_documents import Chosen

QUANTILES = (0.5, 0.9, 0.99, 1.0)


class Fitter:
    """Makes examples that fit max_length, and counts what that took."""

    def __init__(self, renderer: Renderer, max_length: int, abstain: bool, ledger: Ledger) -> None:
        self._renderer, self._max_length, self._abstain, self._ledger = renderer, max_length, abstain, ledger
        self._num_shortened = 0
        self._num_dropped = 0
        self._lengths: list[int] = []

    def fit(self, row: QA, chosen: Chosen, group: str) -> Example | None:
        """The example, or None where question and answer alone are too long: then the ledger has it."""
        self._ledger.read()
        abstains = chosen.kind == "without_gold" and self._abstain
        answer = self._renderer.prompt.abstain if abstains else row.answer
        texts = [document.text for document in chosen.documents]

        def num_tokens(documents: Sequence[str]) -> int:
            return len(self._renderer.tokenise(row.question, documents, answer).input_ids)

        kept = fit_documents(texts, chosen.need, num_tokens, self._max_length)
        if kept is None:
            detail = f"{num_tokens([])} tokens without documents, max_length is {self._max_length}"
            self._ledger.reject(row.id, "too_long", detail)
            return None
        self._num_shortened += kept != texts
        self._num_dropped += kept.count("")
        documents = [text for text in kept if text]
        self._lengths.append(num_tokens(documents))
        return Example(
            id=row.id,
            kind=row.kind,
            question=row.question,
            answer=answer,
            documents=documents,
            document_ids=[
                i for document, text in zip(chosen.documents, kept, strict=True) for i in document.ids_within(text)
            ],
            documents_kind=chosen.kind if documents or abstains else "none",
            group=group,
            source_document=row.source_document,
            evidence=row.evidence,
            key_fact="" if abstains else row.key_fact,
            abstains=abstains,
            style=row.style,
        )

    def metrics(self) -> dict[str, Any]:
        ordered = sorted(self._lengths)
        return {
            "num_shortened": self._num_shortened,
            "num_documents_dropped": self._num_dropped,
            "tokens": {f"p{round(100 * q)}": ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in QUANTILES},
        }
