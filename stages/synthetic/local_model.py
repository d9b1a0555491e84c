"""The configured base model in this process, as the one who writes the pairs.

Two methods:
    instruct        it is asked as a server is, and its JSON is read (for models that follow instructions)
    continue_chat   it is shown a chunk where documents stand in every prompt of ours, and continues the chat by
                    itself: first with the user's turn, a question, then with the answer to it. The idea is Magpie's
                    (Xu et al., 2024, arXiv:2406.08464). It needs no instruction: a base that was pre-trained on
                    chats about documents, as the tiny one is, can do it.

Nothing of torch is imported while every request is found in the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from stages.core import schema
from stages.core.fingerprint import fingerprint
from stages.core.progress import track
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder, load_model, load_tokenizer, resolve_base
from stages.prompts.renderer import Renderer
from stages.synthetic.drafts import Draft
from stages.synthetic.journal import open_journal
from stages.synthetic.plan import Task
from stages.synthetic.requests import Reply, Request
from stages.synthetic.sampling import Written, sample
from stages.synthetic.settings import Local, Style

VERSION = 2  # raise it when the same request is answered in another way
QUESTION = "QUESTION"  # holds the place of the question, to see how a chat template opens the user's turn

Row = Mapping[str, Any]


class LocalModel:
    """Writes by itself; see the module."""

    def __init__(
        self, model: schema.Model, prompt: schema.Prompt, settings: Local, seed: int, workspace: Workspace
    ) -> None:
        self.name = model.name
        self._model = model
        self._prompt = prompt
        self._settings = settings
        self._workspace = workspace
        self._cache = workspace.cache("requests")
        self._loaded: Any = None
        self._renderer = Renderer(prompt)
        manifest = workspace.read(base_folder(model)) / MANIFEST
        sampling = (settings.temperature, settings.max_tokens, seed)
        self._identity = fingerprint(VERSION, manifest, model.dtype, *sampling)

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply for each request, in their order."""
        wanted = {fingerprint(self._identity, "instruct", request): request for request in requests}
        with open_journal(self._cache, f"local-{self.name}") as journal:
            for keys in self._pending(list(wanted), journal, "asking"):
                replies = self._reply({key: wanted[key] for key in keys})
                journal.add({key: asdict(reply) for key, reply in replies.items()})
            keys = [fingerprint(self._identity, "instruct", request) for request in requests]
            return [Reply(**journal[key]) for key in keys]

    def continue_chats(self, tasks: Sequence[Task], styles: Mapping[str, Style]) -> tuple[list[Draft], list[Reply]]:
        """All drafts, and what they took. A chunk's n-th pair is the same in every style but for its frame."""
        asked = [(Draft(t.chunk, t.style, n), self._chat_key(t, n)) for t in tasks for n in range(1, t.count + 1)]
        texts = {key: draft.chunk.text for draft, key in asked}
        with open_journal(self._cache, f"local-{self.name}") as journal:
            for keys in self._pending(list(texts), journal, "asking"):
                journal.add(self._chat({key: texts[key] for key in keys}))
            drafts = [_framed(draft, journal[key], styles.get(draft.style)) for draft, key in asked]
            return drafts, [_tokens(journal[key]) for key in texts]

    def _chat_key(self, task: Task, number: int) -> str:
        return fingerprint(self._identity, "continue_chat", self._prompt, task.chunk.text, number)

    def _pending(self, keys: list[str], journal: Any, description: str) -> Iterator[list[str]]:
        """Whole batches of which something is missing, always cut in the same way: rounding depends on the batch."""
        size = self._settings.batch_size
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        missing = [batch for batch in batches if any(key not in journal for key in batch)]
        return track(missing, f"{description} {self.name}", len(missing))

    def _load(self) -> Any:
        if self._loaded is None:
            folder = resolve_base(self._workspace, self._model)
            self._renderer = Renderer(self._prompt, load_tokenizer(folder))
            self._loaded = load_model(folder, self._model)
        return self._loaded

    def _reply(self, requests: Mapping[str, Request]) -> dict[str, Reply]:
        self._load()
        prompts = {key: self._renderer.prompt_ids(request.messages) for key, request in requests.items()}
        written = self._write(prompts, self._settings.temperature)
        return {key: _reply(len(prompts[key]), written.get(key)) for key in requests}

    def _chat(self, texts: Mapping[str, str]) -> dict[str, Row]:
        self._load()
        openings = {key: self._opening(text) for key, text in texts.items()}
        questions = self._write(openings, self._settings.temperature)
        messages = {key: self._renderer.messages(asked.text, [texts[key]]) for key, asked in questions.items()}
        prompts = {key: self._renderer.prompt_ids(asked) for key, asked in messages.items()}
        answers = self._write(prompts, 0.0)
        return {key: _row(len(openings[key]), questions.get(key), answers.get(key)) for key in texts}

    def _opening(self, text: str) -> list[int]:
        """Token ids up to where the user begins to write."""
        tokenizer = self._renderer.tokenizer
        messages = self._renderer.messages(QUESTION, [text])
        whole: str = tokenizer.apply_chat_template(messages, tokenize=False)
        ids: list[int] = tokenizer(whole[: whole.rindex(QUESTION)], add_special_tokens=False)["input_ids"]
        return ids

    def _write(self, prompts: Mapping[str, list[int]], temperature: float) -> dict[str, Written]:
        """By key; prompts that leave no room in the model's context are left out."""
        room = self._model.max_context_tokens - self._settings.max_tokens
        fitting = {key: ids for key, ids in prompts.items() if len(ids) <= room}
        if not fitting:
            return {}
        seeds = [int(key[:15], 16) for key in fitting]
        limit, tokenizer = self._settings.max_tokens, self._renderer.tokenizer
        written = sample(self._load(), tokenizer, list(fitting.values()), seeds, temperature, limit)
        return dict(zip(fitting, written, strict=True))


def _reply(num_prompt_tokens: int, written: Written | None) -> Reply:
    if written is None:
        return Reply(error=f"{num_prompt_tokens} tokens leave no room for an answer in the model's context")
    reason = "stop" if written.ended else "length"
    return Reply(written.text, reason, "", num_prompt_tokens, written.num_tokens)


def _row(num_opening_tokens: int, question: Written | None, answer: Written | None) -> Row:
    written = [part for part in (question, answer) if part is not None]
    return {
        "question": question.text.strip() if question else "",
        "answer": answer.text.strip() if answer else "",
        "fits": len(written) == 2,
        "ended": all(part.ended for part in written),
        "confidence": round(answer.confidence, 6) if answer else 0.0,
        "num_prompt_tokens": num_opening_tokens,
        "num_completion_tokens": sum(part.num_tokens for part in written),
    }


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
