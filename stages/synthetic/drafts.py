"""A pair on its way from the model's answer to the training data, or out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from stages.knowledge.records import Chunk


@dataclass(frozen=True)
class Draft:
    """One of the pairs that were asked for.

    question, answer: what the filters judge. shown_question, shown_answer: what is trained on where it differs (with
    options, or with a frame). key_fact: as in QA. confidence: the probability of the answer's least likely token,
    where the writer tells (else 1). reason: why it was rejected; "" while it is not.
    """

    chunk: Chunk
    style: str
    number: int  # among those asked of this chunk in this style, from 1
    question: str = ""
    answer: str = ""
    shown_question: str = ""
    shown_answer: str = ""
    key_fact: str = ""
    confidence: float = 1.0
    reason: str = ""
    detail: str = ""

    def rejected(self, reason: str, detail: str = "") -> Draft:
        return replace(self, reason=reason, detail=detail)

    @property
    def final(self) -> tuple[str, str]:
        """Question and answer as they are trained on."""
        return self.shown_question or self.question, self.shown_answer or self.answer

    @property
    def id(self) -> str:
        """From the content: other pairs, renumbered chunks and the order of asking change nothing."""
        parts = (self.chunk.document, self.style, *self.final)
        return "sft-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def rejection_row(self) -> dict[str, Any]:
        """As it stands in rejected.jsonl."""
        return {
            "chunk": self.chunk.id,
            "style": self.style,
            "number": self.number,
            "reason": self.reason,
            "detail": self.detail,
            "question": self.question,
            "answer": self.answer,
        }
