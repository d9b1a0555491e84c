r"""ShareGPT: turns named by who speaks; tool calls as LLaMA-Factory writes them.

    {"conversations": [{"from": "system", "value": "Be brief."},
                       {"from": "human", "value": "Weather in Oslo?"},
                       {"from": "function_call",
                        "value": "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}"},
                       {"from": "observation", "value": "rain"},
                       {"from": "gpt", "value": "It rains."}]}

Ids of calls stand beside name and arguments, where readers that do not know them pass over them. What an assistant
says before it calls a tool is a `gpt` turn before the `function_call`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from stages.formats.chat import check_results
from stages.formats.conversation import (
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

KEYS = ("conversations", "system")
TURN_KEYS = ("from", "value", "tool_call_id")
TURN_KEYS_OF_CHAT = ("role", "content", "tool_call_id")  # some files call it conversations and write messages
ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "function_call": "function_call", "observation": "tool", "tool": "tool",
}  # fmt: skip
SPEAKERS = {"system": "system", "developer": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def read_sharegpt(row: Mapping[str, Any]) -> Conversation:
    """Raises Flaw naming the turn, counted from 1."""
    system = text_at(row, "system", needed=False)
    messages = [Message("system", system)] if system.strip() else []
    for number, turn in enumerate(list_at(row, "conversations"), start=1):
        try:
            _add(messages, turn)
        except Flaw as flaw:
            raise Flaw(flaw.reason, f"turn {number}: {flaw.detail}") from flaw
    check_results(messages)
    return checked(Conversation(tuple(messages), fields=rest_of(row, KEYS)))


def write_sharegpt(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """Holds everything but the border between question and context, and what sets developer and system apart."""
    messages = with_context(conversation, losses)
    losses["developer_role"] += any(message.role == "developer" for message in messages)
    row = {"conversations": [turn for message in messages for turn in _turns(message, losses)]}
    return with_fields(row, conversation.fields, KEYS, losses)


def _add(messages: list[Message], turn: Any) -> None:
    if not isinstance(turn, Mapping):
        raise Flaw("wrong_type", f"expected an object, found {turn!r:.40}")
    keys = TURN_KEYS if "from" in turn else TURN_KEYS_OF_CHAT
    speaker = turn.get(keys[0])
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise Flaw("unknown_role", f"{keys[0]} {speaker!r:.40}; known: {', '.join(ROLES)}")
    text = text_at(turn, keys[1], needed=role != "tool")
    fields = rest_of(turn, keys)
    if role != "function_call":
        messages.append(Message(role, text, (), text_at(turn, "tool_call_id", needed=False), fields))
        return
    calls = _calls(text)
    said = bool(messages) and messages[-1].role == "assistant" and not messages[-1].tool_calls
    before = messages.pop() if said else Message("assistant", "")
    messages.append(replace(before, tool_calls=calls, fields={**before.fields, **fields}))


def _calls(text: str) -> tuple[ToolCall, ...]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Flaw("broken_tool_call", f"not JSON: {text!r:.40}") from error
    values = value if isinstance(value, list) else [value]
    if not values:
        raise Flaw("broken_tool_call", "an empty list of calls")
    return tuple(_call(value) for value in values)


def _call(value: Any) -> ToolCall:
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise Flaw("broken_tool_call", f"no name in {value!r:.60}")
    return ToolCall(text_at(value, "id", needed=False), name, arguments_text(value.get("arguments")))


def _turns(message: Message, losses: Losses) -> Iterable[dict[str, Any]]:
    turn: dict[str, Any] = {"from": SPEAKERS[message.role], "value": message.content}
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    losses["message_fields"] += len(set(message.fields) & set(TURN_KEYS))
    fields = rest_of(message.fields, TURN_KEYS)
    if not message.tool_calls:
        yield turn | fields
        return
    if message.content.strip():
        yield turn
    calls = [_call_value(call) for call in message.tool_calls]
    value = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    yield {"from": "function_call", "value": value, **fields}


def _call_value(call: ToolCall) -> dict[str, Any]:
    """Arguments as an object, which readers expect; as text only where writing it again would change its letters."""
    value = json.loads(call.arguments)
    same = isinstance(value, dict) and json.dumps(value, ensure_ascii=False) == call.arguments
    return {
        **({"id": call.id} if call.id else {}),
        "name": call.name,
        "arguments": value if same else call.arguments,
    }
