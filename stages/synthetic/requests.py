"""What a model that follows instructions is asked, and how its JSON is read.

    {"pairs": [{"question": "Who founded the mill?", "answer": "Lona Tir founded it."}]}
    {"pairs": [{"question": "...", "options": ["...", "..."], "correct": "B", "explanation": "..."}]}
    {"questions": ["Who founded the mill?"]}

The chunk is untrusted: it stands in a fence that it cannot close. Every pair asked for becomes a draft: with its
text, or with the reason why there is none (invalid_json, wrong_schema, missing, refused, request_failed).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages.core.fingerprint import fingerprint
from stages.prompts.chat import Message
from stages.prompts.renderer import Renderer
from stages.synthetic.drafts import Draft
from stages.synthetic.languages import LANGUAGES
from stages.synthetic.plan import POTENTIAL_QUESTIONS, Task
from stages.synthetic.settings import Style, Wording

LETTERS = "ABCDEF"
NUM_OPTIONS = range(2, len(LETTERS) + 1)
SHOWN_CHARS = 80
MAX_STARTS = 20  # places where a JSON object may begin that are tried
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

TEXT = {"type": "string"}
FIELDS: dict[str, dict[str, Any]] = {
    "pair": {"question": TEXT, "answer": TEXT},
    "choice": {
        "question": TEXT,
        "options": {"type": "array", "items": TEXT},
        "correct": {"type": "string", "enum": list(LETTERS)},
        "explanation": TEXT,
    },
}
EXAMPLES = {
    "pair": '{"pairs": [{"question": "...", "answer": "..."}]}',
    "choice": '{"pairs": [{"question": "...", "options": ["...", "...", "...", "..."], "correct": "B", '
    '"explanation": "..."}]}',
    POTENTIAL_QUESTIONS: '{"questions": ["..."]}',
}


@dataclass(frozen=True)
class Request:
    """What is sent: the messages, and the JSON schema of the answer."""

    messages: list[Message]
    schema: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came back; error: why the server takes this request in no form."""

    content: str = ""
    finish_reason: str = ""
    refusal: str = ""
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    error: str = ""


class Requests:
    """Builds requests and reads replies, for one wording, language and audience."""

    def __init__(
        self, wording: Wording, styles: Mapping[str, Style], language: str, audience: str, renderer: Renderer
    ) -> None:
        self._wording = wording
        self._styles = styles
        self._values = {"{language}": LANGUAGES[language].name, "{audience}": audience}
        self._escape = renderer.escape

    def prompt_hash(self, style: str) -> str:
        """Of all that a request of this style holds besides the chunk and the count."""
        return fingerprint(self._wording, self._values, self._instruction(style), _schema(self._form(style)))

    def build(self, task: Task) -> Request:
        values = {
            "{instruction}": self._instruction(task.style),
            "{example}": EXAMPLES[self._form(task.style)],
            "{count}": str(task.count),
            **self._values,
            "{document}": self._escape(task.chunk.text.strip()),  # last: braces in it mean nothing
        }
        system, user = fill(self._wording.system, values), fill(self._wording.user, values)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return Request(messages, _schema(self._form(task.style)))

    def read(self, task: Task, reply: Reply) -> list[Draft]:
        """Exactly `task.count` drafts; what a model writes beyond them is left out."""
        drafts = [Draft(task.chunk, task.style, number) for number in range(1, task.count + 1)]
        if flaw := flaw_of(reply):
            return [draft.rejected(*flaw) for draft in drafts]
        try:
            items = _items(reply.content, task.style == POTENTIAL_QUESTIONS)
        except WrongAnswerError as error:
            return [draft.rejected(error.reason, str(error)) for draft in drafts]
        read = [_read_item(draft, item, self._form(task.style)) for draft, item in zip(drafts, items, strict=False)]
        missing = f"{len(items)} came of {task.count}"
        return [*read, *(draft.rejected("missing", missing) for draft in drafts[len(items) :])]

    def _form(self, style: str) -> str:
        return POTENTIAL_QUESTIONS if style == POTENTIAL_QUESTIONS else self._styles[style].form

    def _instruction(self, style: str) -> str:
        if style == POTENTIAL_QUESTIONS:
            return self._wording.potential_questions.strip()
        return self._styles[style].instruction.strip()


class WrongAnswerError(Exception):
    """An answer that is not what was asked for; `reason` as it stands in rejected.jsonl."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each placeholder replaced, in their order."""
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    return template.strip()


def _schema(form: str) -> dict[str, Any]:
    if form == POTENTIAL_QUESTIONS:
        return object_schema({"questions": {"type": "array", "items": TEXT}})
    return object_schema({"pairs": {"type": "array", "items": object_schema(FIELDS[form])}})


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with these properties, all required, and none beside them, as strict servers want it."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def flaw_of(reply: Reply) -> tuple[str, str] | None:
    """(reason, detail) where a reply holds no answer to read."""
    if reply.error:
        return "request_failed", reply.error
    if reply.refusal or reply.finish_reason == "content_filter":
        return "refused", _shown(reply.refusal or "content filter")
    if reply.finish_reason == "length":
        return "invalid_json", "cut off at max_tokens"
    return None


def _items(content: str, are_questions: bool) -> list[Any]:
    found = first_object(content)
    key = "questions" if are_questions else "pairs"
    if not isinstance(found.get(key), list):
        raise WrongAnswerError("wrong_schema", f"no list {key}, but {', '.join(found) or 'nothing'}"[:SHOWN_CHARS])
    items: list[Any] = found[key]
    return items


def first_object(text: str) -> dict[str, Any]:
    """The first JSON object in an answer, whatever stands around it: a code fence, reasoning, a greeting.

    Raises WrongAnswerError where there is none.
    """
    text = THINKING.sub("", text)
    decoder = json.JSONDecoder()
    start = -1
    for _ in range(MAX_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError of another kind
            continue
        if isinstance(value, dict):
            return value
    raise WrongAnswerError("invalid_json", _shown(text))


def _read_item(draft: Draft, item: Any, form: str) -> Draft:
    if form == POTENTIAL_QUESTIONS:
        return _with(draft, question=item) if isinstance(item, str) else _wrong(draft, item)
    wanted = FIELDS[form]
    if not isinstance(item, dict) or any(not isinstance(item.get(k), str) for k in wanted if k != "options"):
        return _wrong(draft, item)
    if form == "pair":
        return _with(draft, question=item["question"], answer=item["answer"])
    return _read_choice(draft, item)


def _read_choice(draft: Draft, item: dict[str, Any]) -> Draft:
    options, letter = item.get("options"), item["correct"].strip().upper()[:1]
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        return _wrong(draft, item)
    options = [option.strip() for option in options]
    right = LETTERS.find(letter) if letter else -1
    if len(options) not in NUM_OPTIONS or len(set(options)) < len(options) or not 0 <= right < len(options):
        return _wrong(draft, item)
    question, explanation = item["question"].strip(), item["explanation"].strip()
    lines = [f"{mark}) {option}" for mark, option in zip(LETTERS, options, strict=False)]
    return _with(
        draft,
        question=question,
        answer=f"{options[right]}\n{explanation}",
        shown_question="\n".join([question, *lines]),
        shown_answer=f"{lines[right]}\n{explanation}".strip(),
        key_fact=options[right],
    )


def _with(draft: Draft, **texts: str) -> Draft:
    return replace(draft, **texts)  # type: ignore[arg-type]  # all of them are texts


def _wrong(draft: Draft, item: Any) -> Draft:
    return draft.rejected("wrong_schema", _shown(json.dumps(item, ensure_ascii=False)))


def _shown(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARS]
