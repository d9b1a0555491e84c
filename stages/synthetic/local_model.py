"""The configured base model, in this process or in workers on Ray, as the one who writes the pairs.

Two methods:
    instruct        it is asked as a server is, and its JSON is read (for models that follow instructions)
    continue_chat   it is shown a chunk where documents stand in every prompt of ours, and continues the chat by
                    itself: first with the user's turn, a question, then with the answer to it. The idea is Magpie's
                    (Xu et al., 2024, arXiv:2406.08464). It needs no instruction: a base that was pre-trained on
                    chats about documents, as the tiny one is, can do it.

Nothing of torch is imported while every request is found in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stages.core import schema
from stages.core.engine import Engine, map_batches
from stages.core.fingerprint import fingerprint
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder
from stages.synthetic.drafts import Draft
from stages.synthetic.journal import Journal, open_journal
from stages.synthetic.local_writer import Row, base_fingerprint, load_writer
from stages.synthetic.plan import Task
from stages.synthetic.requests import Reply, Request
from stages.synthetic.settings import Local, Style

VERSION = 2  # raise it when the same request is answered in another way


class LocalModel:
    """Writes by itself, where `engine` says; see the module."""

    def __init__(
        self,
        model: schema.Model,
        prompt: schema.Prompt,
        settings: Local,
        seed: int,
        workspace: Workspace,
        engine: Engine | None = None,
    ) -> None:
        self.name = model.name
        self._prompt = prompt
        self._batch_size = settings.batch_size
        self._engine = engine or Engine()
        self._cache = workspace.cache("requests")
        manifest = workspace.read(base_folder(model)) / MANIFEST
        sampling = (settings.temperature, settings.max_tokens, seed)
        self._identity = fingerprint(VERSION, manifest, model.dtype, *sampling)
        base = base_fingerprint(model, workspace)
        self._load = partial(load_writer, model=model, prompt=prompt, settings=settings, workspace=workspace, base=base)

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply for each request, in their order."""
        wanted = {fingerprint(self._identity, "instruct", request): request for request in requests}
        with open_journal(self._cache, f"local-{self.name}") as journal:
            self._write_missing("instruct", wanted, journal)
            keys = [fingerprint(self._identity, "instruct", request) for request in requests]
            return [Reply(**journal[key]) for key in keys]

    def continue_chats(self, tasks: Sequence[Task], styles: Mapping[str, Style]) -> tuple[list[Draft], list[Reply]]:
        """All drafts, and what they took. A chunk's n-th pair is the same in every style but for its frame."""
        asked = [(Draft(t.chunk, t.style, n), self._chat_key(t, n)) for t in tasks for n in range(1, t.count + 1)]
        texts = {key: draft.chunk.text for draft, key in asked}
        with open_journal(self._cache, f"local-{self.name}") as journal:
            self._write_missing("continue_chat", texts, journal)
            drafts = [_framed(draft, journal[key], styles.get(draft.style)) for draft, key in asked]
            return drafts, [_tokens(journal[key]) for key in texts]

    def _chat_key(self, task: Task, number: int) -> str:
        return fingerprint(self._identity, "continue_chat", self._prompt, task.chunk.text, number)

    def _write_missing(self, method: str, asked: Mapping[str, Any], journal: Journal) -> None:
        """Whole batches of which something is missing, always cut in the same way: rounding depends on the batch."""
        keys, size = list(asked), self._batch_size
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        missing = [{key: asked[key] for key in batch} for batch in batches if any(key not in journal for key in batch)]
        for _, rows in map_batches(self._engine, partial(self._load, method), missing, f"asking {self.name}"):
            journal.add(rows)


def _tokens(row: Row) -> Reply:
    return Reply(num_prompt_tokens=row["num_prompt_tokens"], num_completion_tokens=row["num_completion_tokens"])


def _framed(draft: Draft, row: Row, style: Style | None) -> Draft:
    draft = replace(draft, question=row["question"], answer=row["answer"], confidence=row["confidence"])
    if not row["fits"]:
        return draft.rejected("request_failed", "the chunk leaves no room in the model's context")
    if not row["ended"]:
        return draft.rejected("too_long", "cut off at local.max_tokens")
    if style is None:
        return draft
    return replace(
        draft,
        shown_question=style.frame_question.replace("{question}", draft.question),
        shown_answer=style.frame_answer.replace("{answer}", draft.answer),
        key_fact=draft.answer,
    )
