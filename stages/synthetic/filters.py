"""What is thrown out of a model's pairs, each for a reason that is counted.

empty  refused  not_answerable  too_short  too_long  about_the_text  not_standalone  wrong_language  not_grounded
near_duplicate
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stages.knowledge.near_duplicates import Groups, near_duplicates
from stages.knowledge.shingles import words
from stages.synthetic import phrases
from stages.synthetic.drafts import Draft
from stages.synthetic.grounding import support
from stages.synthetic.languages import wrong_language
from stages.synthetic.plan import POTENTIAL_QUESTIONS
from stages.synthetic.settings import Filters, Style

NAMED_IN_DETAIL = 5


class Judge:
    """The filters for one language; an answer that says only `abstain` (of the prompt) answers nothing."""

    def __init__(self, filters: Filters, styles: Mapping[str, Style], language: str, abstain: str) -> None:
        self._filters = filters
        self._language = language
        self._abstain = words(abstain)
        self._styles = styles

    def __call__(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts in their order, with a reason where there is one; those that have one keep it."""
        judged = [draft if draft.reason else self._judge(draft) for draft in drafts]
        return _without_near_duplicates(judged, self._filters.near_duplicate_similarity)

    def _judge(self, draft: Draft) -> Draft:
        draft = replace(draft, question=draft.question.strip(), answer=draft.answer.strip())
        found = self._flaw_of_form(draft) or self._flaw_of_wording(draft) or self._flaw_of_content(draft)
        return draft.rejected(*found) if found else draft

    def _flaw_of_form(self, draft: Draft) -> tuple[str, str] | None:
        filters = self._filters
        limits = {"question": (draft.question, filters.min_question_chars, filters.max_question_chars)}
        if draft.style != POTENTIAL_QUESTIONS:
            limits["answer"] = (draft.answer, filters.min_answer_chars, filters.max_answer_chars)
        for name, (text, shortest, longest) in limits.items():
            if not words(text):
                return "empty", name
            if len(text) < shortest:
                return "too_short", f"{name}: {len(text)} characters"
            if len(text) > longest:
                return "too_long", f"{name}: {len(text)} characters"
        return None

    def _flaw_of_wording(self, draft: Draft) -> tuple[str, str] | None:
        question, answer = draft.question, draft.answer
        if found := phrases.refusal(answer) or phrases.refusal(question):
            return "refused", found
        if (answer and words(answer) == self._abstain) or (found := phrases.says_unanswerable(answer)):
            return "not_answerable", found or answer
        if answer and not set(words(answer)) - set(words(question)):
            return "not_answerable", "adds nothing to its question"
        if found := phrases.about_the_text(question) or phrases.about_the_text(answer):
            return "about_the_text", found
        if found := phrases.pronoun_without_antecedent(question, self._language):
            return "not_standalone", found
        return None

    def _flaw_of_content(self, draft: Draft) -> tuple[str, str] | None:
        for text in (draft.question, draft.answer, f"{draft.question} {draft.answer}"):
            if found := wrong_language(text, self._language):
                return "wrong_language", found
        if draft.confidence < self._filters.min_confidence:
            return "not_confident", f"{draft.confidence:.3f}"
        missing = self._missing(draft)
        return ("not_grounded", ", ".join(missing[:NAMED_IN_DETAIL])) if missing else None

    def _missing(self, draft: Draft) -> list[str]:
        """What a pair says that its chunk does not: numbers and names first, else words where too many are missing."""
        style = self._styles.get(draft.style)
        asked = support(draft.question, draft.chunk.text, self._language)
        answered = support(draft.answer, draft.chunk.text, self._language)
        if style is None or not style.may_invent:
            named = [name for found in (asked, answered) for name in found.missing_numbers + found.missing_names]
            if named:
                return list(dict.fromkeys(named))
        own = style.min_grounded_share if style else None
        least = self._filters.min_grounded_share if own is None else own
        return [f"{answered.share:.2f} of its words are", *answered.missing_words] if answered.share < least else []


def _without_near_duplicates(drafts: Sequence[Draft], threshold: float) -> list[Draft]:
    """Of drafts that ask the same, or ask and answer nearly the same, the first stays.

    Compared within a style: the same question may be answered in two manners. Questions without answers are compared
    within their chunk: two chunks may answer the same one.
    """
    kept: dict[tuple[str, str], list[int]] = {}
    for number, draft in enumerate(drafts):
        if not draft.reason:
            chunk = draft.chunk.id if draft.style == POTENTIAL_QUESTIONS else ""
            kept.setdefault((draft.style, chunk), []).append(number)
    judged = list(drafts)
    for numbers in kept.values():
        for number, first in _firsts([drafts[n] for n in numbers], threshold).items():
            original = drafts[numbers[first]]
            detail = f"of {original.chunk.id}, {original.style} {original.number}"
            judged[numbers[number]] = drafts[numbers[number]].rejected("near_duplicate", detail)
    return judged


def _firsts(drafts: Sequence[Draft], threshold: float) -> dict[int, int]:
    """Number of a near-duplicate -> number of the first of its cluster."""
    groups = Groups(range(len(drafts)))
    asked = near_duplicates([(draft.question,) for draft in drafts], threshold)
    whole = near_duplicates([(draft.question, draft.answer) for draft in drafts], threshold)
    for one, other in asked + whole:
        groups.join(one, other)
    return {n: first for n in range(len(drafts)) if (first := groups.first(n)) != n}
