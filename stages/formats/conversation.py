"""The one record that every format is read into and written from.

    {"instruction": "Who is the founder?", "input": "Bako is a mill ...", "output": "Ilse.", "source": "mills.pdf"}
 -> Conversation(messages=(Message("user", "Who is the founder?"), Message("assistant", "Ilse.")),
                 context="Bako is a mill ...", fields={"source": "mills.pdf"})

Texts are kept to the letter; only what is empty is told from what is not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
INSTRUCTING = ("system", "developer")

Losses = Counter[str]  # what a target cannot hold, by kind; counted, once or more a record, in records that are kept


class Flaw(Exception):  # noqa: N818  # it is no failure of the program: a record is rejected by it
    """Why a record is rejected: a snake_case reason, and a detail for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ToolCall:
    """arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn. fields: what else stood in it (a weight, a name), by its key in the file."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation:
    """context: what the last question is about (alpaca's `input`). fields: what else the record holds, as it came."""

    messages: tuple[Message, ...]
    context: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tool_names(self) -> list[str]:
        """Names of the tools that are called, sorted; of a result without its call, its id."""
        called = {call.name for message in self.messages for call in message.tool_calls}
        answered = {message.tool_call_id or "tool" for message in self.messages if message.role == "tool"}
        return sorted(called or answered)


@dataclass(frozen=True)
class Dialogue:
    """A conversation that is nothing but questions and their answers, oldest first, under at most one system text."""

    system: str
    turns: list[tuple[str, str]]


def checked(conversation: Conversation) -> Conversation:
    """The conversation, if something can be learned from it. Raises Flaw: empty_message, no_answer."""
    for number, message in enumerate(conversation.messages, start=1):
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            raise Flaw("empty_message", f"message {number} ({message.role}) is empty")
    if not any(message.role == "assistant" for message in conversation.messages):
        raise Flaw("no_answer", "no message is the assistant's")
    return conversation


def dialogue(conversation: Conversation, losses: Losses) -> Dialogue:
    """For formats without messages. Raises Flaw: tool_calls, roles_out_of_order. Counts message_fields, developer_role.

    A conversation is not cut to what fits: an answer without the turns before it would teach something else.
    """
    if conversation.tool_names:
        raise Flaw("tool_calls", f"calls {', '.join(conversation.tool_names)}")
    messages = list(conversation.messages)
    system = messages.pop(0) if messages[0].role in INSTRUCTING else Message("system", "")
    expected = ["user", "assistant"] * (len(messages) // 2)
    if not expected or [message.role for message in messages] != expected:
        raise Flaw("roles_out_of_order", " ".join(message.role for message in conversation.messages))
    losses["developer_role"] += system.role == "developer"
    losses["message_fields"] += sum(bool(message.fields) for message in conversation.messages)
    texts = [message.content for message in messages]
    return Dialogue(system.content, list(zip(texts[::2], texts[1::2], strict=True)))


def from_turns(system: str, turns: Iterable[tuple[str, str]], context: str, fields: Mapping[str, Any]) -> Conversation:
    """The opposite of `dialogue`."""
    first = [Message("system", system)] if system.strip() else []
    rest = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    return Conversation((*first, *rest), context, fields)


def with_context(conversation: Conversation, losses: Losses) -> tuple[Message, ...]:
    """The messages, the context below the last question: for formats with no place for it. Counts context_joined."""
    messages = list(conversation.messages)
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    if not conversation.context.strip() or not asked:
        return conversation.messages
    losses["context_joined"] += 1
    old = messages[asked[-1]]
    messages[asked[-1]] = Message(old.role, f"{old.content}\n\n{conversation.context}", fields=old.fields)
    return tuple(messages)


def rest_of(row: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """What a record holds besides what its format knows."""
    held = set(known)
    return {key: value for key, value in row.items() if key not in held}


def with_fields(row: dict[str, Any], fields: Mapping[str, Any], known: Iterable[str], losses: Losses) -> dict[str, Any]:
    """`row` and the fields beside it; one whose name the format needs for itself is lost: counts field_name_taken."""
    taken = set(known) & set(fields)
    losses["field_name_taken"] += len(taken)
    return row | rest_of(fields, taken)


def text_at(values: Mapping[str, Any], key: str, needed: bool = True) -> str:
    """The text below `key`; "" where it is null or absent and not needed. Raises Flaw: missing_field, not_text,
    empty_text."""
    value = values.get(key)
    if value is None and needed:
        raise Flaw("missing_field", f"{key} is missing" if key not in values else f"{key} is null")
    if not isinstance(value, str | None):
        raise Flaw("not_text", f"{key} is {value!r:.40}")
    if needed and not (value or "").strip():
        raise Flaw("empty_text", f"{key} is empty")
    return value or ""


def list_at(values: Mapping[str, Any], key: str) -> list[Any]:
    """The list below `key`, which is not empty. Raises Flaw: missing_field, wrong_type, no_messages."""
    value = values.get(key)
    if value is None:
        raise Flaw("missing_field", f"{key} is missing")
    if not isinstance(value, list):
        raise Flaw("wrong_type", f"{key} is {value!r:.40}, not a list")
    if not value:
        raise Flaw("no_messages", f"{key} is an empty list")
    return value


def arguments_text(value: Any) -> str:
    """Arguments of a tool call as JSON text; an object is written down. Raises Flaw: broken_tool_call."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Flaw("broken_tool_call", f"arguments are not JSON: {value!r:.40}") from error
    return str(value)
