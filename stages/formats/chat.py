r"""Chat: OpenAI messages, tool calls included (https://platform.openai.com/docs/guides/supervised-fine-tuning).

    {"messages": [{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": "Weather in Oslo?"},
                  {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", "type": "function",
                      "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
                  {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                  {"role": "assistant", "content": "It rains."}], "tools": [...]}

Content may also come as a list of text parts; they are joined, as the API does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stages.formats.conversation import (
    ROLES,
    Conversation,
    Flaw,
    Losses,
    Message,
    ToolCall,
    arguments_text,
    checked,
    list_at,
    rest_of,
    text_at,
    with_context,
    with_fields,
)

KEYS = ("messages",)
MESSAGE_KEYS = ("role", "content", "tool_calls", "tool_call_id")


def read_chat(row: Mapping[str, Any]) -> Conversation:
    """Raises Flaw naming the message, counted from 1."""
    return checked(Conversation(read_messages(list_at(row, "messages")), fields=rest_of(row, KEYS)))


def write_chat(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """Holds everything but the border between question and context."""
    row = {"messages": write_messages(with_context(conversation, losses), losses)}
    return with_fields(row, conversation.fields, KEYS, losses)


def read_messages(values: Iterable[Any]) -> tuple[Message, ...]:
    """Raises Flaw: wrong_type, unknown_role, not_text, tool_calls_of_old_form, broken_tool_call, tool_result_alone."""
    messages: list[Message] = []
    for number, value in enumerate(values, start=1):
        try:
            messages.append(_message(value))
        except Flaw as flaw:
            raise Flaw(flaw.reason, f"message {number}: {flaw.detail}") from flaw
    check_results(messages)
    return tuple(messages)


def check_results(messages: Iterable[Message]) -> None:
    """A tool's result that names a call must follow that call. Raises Flaw: tool_result_alone."""
    called: set[str] = set()
    for number, message in enumerate(messages, start=1):
        called |= {call.id for call in message.tool_calls}
        if message.tool_call_id and message.tool_call_id not in called:
            raise Flaw("tool_result_alone", f"message {number}: nothing called {message.tool_call_id}")


def write_messages(messages: Iterable[Message], losses: Losses) -> list[dict[str, Any]]:
    """The opposite of `read_messages`; an assistant's message with calls and no text has content ""."""
    return [with_fields(_row(message), message.fields, MESSAGE_KEYS, losses) for message in messages]


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise Flaw("wrong_type", f"expected an object, found {value!r:.40}")
    role = value.get("role")
    if role not in ROLES:
        raise Flaw("unknown_role", f"role {role!r:.40}; known: {', '.join(ROLES)}")
    if value.get("function_call"):
        raise Flaw("tool_calls_of_old_form", "function_call; write it as tool_calls")
    calls = _calls(value.get("tool_calls") or [])
    if calls and role != "assistant":
        raise Flaw("broken_tool_call", f"the {role} calls a tool")
    return Message(role, _text(value.get("content")), calls, text_at(value, "tool_call_id", False), _rest(value))


def _rest(value: Mapping[str, Any]) -> dict[str, Any]:
    known = (*MESSAGE_KEYS, "function_call")  # of the old form, and empty here
    return rest_of(value, known)


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Flaw("not_text", f"content is {content!r:.40}")
    return "".join(_part(part) for part in content)


def _part(part: Any) -> str:
    """A text part; its text is below `text`, in LLaMA-Factory's files below `value`."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text", part.get("value")) if kind == "text" else None
    if not isinstance(text, str):
        raise Flaw("not_text", f"a part of the content is {kind or type(part).__name__}")
    return text


def _calls(values: Any) -> tuple[ToolCall, ...]:
    if not isinstance(values, list):
        raise Flaw("broken_tool_call", f"tool_calls is {values!r:.40}")
    return tuple(_call(value) for value in values)


def _call(value: Any) -> ToolCall:
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
        raise Flaw("broken_tool_call", f"no function with a name in {value!r:.60}")
    return ToolCall(text_at(value, "id", needed=False), name, arguments_text(function.get("arguments")))


def _row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    return row
