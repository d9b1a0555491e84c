"""What people decided about generated pairs: curation/reviews.jsonl, only ever added to, in git.

    {"pair": "sft-3f2a90c1d2e4", "state": "edited", "question": "...", "answer": "...", "at": "2026-11-21T14:30:00Z",
     "note": ""}

The last line about a pair counts. `question` and `answer` belong to `edited` alone. Nobody's pair is `proposed`; that
state may be given too, and takes an earlier decision back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import append_jsonl, iterate_lines
from stages.knowledge.records import QA
from stages.synthetic.drafts import Draft

REVIEWS = "reviews.jsonl"  # below the curation folder
STATES = ("proposed", "accepted", "edited", "rejected")
TAKEN = {"accepted": ("accepted", "edited"), "passed": ("proposed", "accepted", "edited")}
PAIR_KIND = "qa"


@dataclass(frozen=True)
class Review:
    """A decision about a pair; at: ISO 8601, UTC."""

    pair: str
    state: str
    question: str = ""
    answer: str = ""
    at: str = ""
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """A pair that passed the filters (data/<domain>/sft/pairs.jsonl), as it stands after its review.

    original: question and answer as the model wrote them, where a person changed them. prompt_hash: of what the model
    was asked, without the chunk. chunk: the id of the chunk it was asked about.
    """

    id: str
    state: str
    style: str
    question: str
    answer: str
    chunk: str
    document: str
    model: str
    prompt_hash: str
    key_fact: str = ""
    note: str = ""
    original: dict[str, str] | None = None

    def as_generated(self) -> Pair:
        """Without its review."""
        texts = self.original or {"question": self.question, "answer": self.answer}
        return replace(self, **texts, state="proposed", note="", original=None)

    def to_qa(self) -> QA:
        """As it is trained on."""
        return QA(
            id=self.id,
            kind=PAIR_KIND,
            question=self.question,
            answer=self.answer,
            source_document=self.document,
            evidence=[self.chunk],
            cluster=self.id,
            origin=f"pairs.jsonl ({self.id})",
            key_fact="" if self.original else self.key_fact,  # a person may have changed it
            style=self.style,
        )


def to_pair(draft: Draft, model: str, prompt_hash: str) -> Pair:
    """A pair that nobody has reviewed."""
    question, answer = draft.final
    return Pair(
        id=draft.id,
        state="proposed",
        style=draft.style,
        question=question,
        answer=answer,
        chunk=draft.chunk.id,
        document=draft.chunk.document,
        model=model,
        prompt_hash=prompt_hash,
        key_fact=draft.key_fact,
    )


def reviewed(pairs: Sequence[Pair], reviews: Iterable[Review]) -> tuple[list[Pair], list[Review]]:
    """The pairs with the last decision about each, and the last decisions about pairs that are not among them."""
    last = {review.pair: review for review in reviews}
    known = {pair.id for pair in pairs}
    return [_apply(pair, last.get(pair.id)) for pair in pairs], [r for r in last.values() if r.pair not in known]


def read_reviews(path: Path) -> list[Review]:
    """All decisions, oldest first; [] where there is no file. Raises DataError with file:line."""
    if not path.exists():
        return []
    return [_review(f"{path.parent}/{line.origin}", line.value, line.error) for line in iterate_lines(path)]


def append_review(path: Path, review: Review) -> None:
    """Adds one line, which is on the disk when this returns."""
    row = {key: value for key, value in asdict(review).items() if value or key not in ("question", "answer")}
    append_jsonl(path, [row])


def now() -> str:
    """As `at` wants it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _review(origin: str, row: dict[str, Any], error: str) -> Review:
    try:
        review = Review(**row)
    except TypeError as mismatch:
        raise DataError(f"{origin}: no review: {error or mismatch}") from mismatch
    if error or not all(isinstance(value, str) for value in row.values()) or review.state not in STATES:
        raise DataError(f"{origin}: no review: {error or 'state is one of ' + ', '.join(STATES)}")
    if review.state == "edited" and not (review.question.strip() and review.answer.strip()):
        raise DataError(f"{origin}: no review: an edited pair has a question and an answer")
    return review


def _apply(pair: Pair, review: Review | None) -> Pair:
    if review is None:
        return pair
    decided = replace(pair, state=review.state, note=review.note)
    if review.state != "edited":
        return decided
    original = {"question": pair.question, "answer": pair.answer}
    return replace(decided, question=review.question, answer=review.answer, original=original)
