"""The base model at work: what one batch of requests, or of chunks, is answered with, here or in a worker on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from stages.core import schema
from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder, load_model, load_tokenizer, resolve_base
from stages.prompts.renderer import Renderer
from stages.synthetic.requests import Reply, Request
from stages.synthetic.sampling import Written, sample
from stages.synthetic.settings import Local

QUESTION = "QUESTION"  # holds the place of the question, to see how a chat template opens the user's turn

Row = Mapping[str, Any]


class LocalWriter:
    """A loaded base. What it writes for a key depends on the key (its seed), the prompt, and in the last bits of a
    probability on the batch."""

    def __init__(self, model: schema.Model, prompt: schema.Prompt, settings: Local, workspace: Workspace) -> None:
        folder = resolve_base(workspace, model)
        self._renderer = Renderer(prompt, load_tokenizer(folder))
        self._model = load_model(folder, model)
        self._max_context_tokens = model.max_context_tokens
        self._settings = settings

    def reply(self, requests: Mapping[str, Request]) -> dict[str, Row]:
        """A Reply, as a row, for each request."""
        prompts = {key: self._renderer.prompt_ids(request.messages) for key, request in requests.items()}
        written = self._write(prompts, self._settings.temperature)
        return {key: asdict(_reply(len(prompts[key]), written.get(key))) for key in requests}

    def chat(self, texts: Mapping[str, str]) -> dict[str, Row]:
        """A question about each text and the answer to it; `fits` where both had room."""
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
        room = self._max_context_tokens - self._settings.max_tokens
        fitting = {key: ids for key, ids in prompts.items() if len(ids) <= room}
        if not fitting:
            return {}
        seeds = [int(key[:15], 16) for key in fitting]
        limit, tokenizer = self._settings.max_tokens, self._renderer.tokenizer
        written = sample(self._model, tokenizer, list(fitting.values()), seeds, temperature, limit)
        return dict(zip(fitting, written, strict=True))


def load_writer(
    method: str, model: schema.Model, prompt: schema.Prompt, settings: Local, workspace: Workspace, base: str
) -> Callable[[Mapping[str, Any]], dict[str, Row]]:
    """LocalWriter's `reply` (method instruct) or `chat` (continue_chat). Where it is called, the base must be the one
    with the fingerprint `base`; else DataError."""
    if base_fingerprint(model, workspace) != base:
        raise DataError(f"models/base/{model.name}: a worker's node has another base model than this machine")
    writer = LocalWriter(model, prompt, settings, workspace)
    return writer.reply if method == "instruct" else writer.chat


def base_fingerprint(model: schema.Model, workspace: Workspace) -> str:
    """Of the base's files, as its manifest lists them, and of how they are read."""
    return fingerprint(workspace.read(base_folder(model)) / MANIFEST, model.dtype)


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
