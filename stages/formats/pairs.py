"""Formats of one question and one answer a record: alpaca, question-context-answer, prompt and completion.

    {"instruction": "Who is the founder?", "input": "Bako is a mill ...", "output": "Ilse."}
    {"question": "Who is the founder?", "context": "Bako is a mill ...", "answer": "Ilse."}
    {"prompt": "Who is the founder?", "completion": "Ilse."}

alpaca holds earlier turns too (`history`, as LLaMA-Factory has it), prompt and completion do as lists of messages
(trl's conversational form). A system text has a key of its own, `system`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.formats.chat import read_messages, write_messages
from stages.formats.conversation import (
    Conversation,
    Flaw,
    Losses,
    Message,
    checked,
    dialogue,
    from_turns,
    list_at,
    rest_of,
    text_at,
    with_context,
    with_fields,
)

ALPACA_KEYS = ("instruction", "input", "output", "system", "history")
QA_KEYS = ("question", "context", "answer", "system")
PROMPT_KEYS = ("prompt", "completion")


def read_alpaca(row: Mapping[str, Any]) -> Conversation:
    """Raises Flaw: missing_field, not_text, empty_text, wrong_type (a history that is no list of pairs)."""
    turn = text_at(row, "instruction"), text_at(row, "output")
    turns = [*_history(row.get("history") or []), turn]
    context = text_at(row, "input", needed=False)
    return checked(from_turns(text_at(row, "system", needed=False), turns, context, rest_of(row, ALPACA_KEYS)))


def write_alpaca(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """Raises Flaw: tool_calls, roles_out_of_order."""
    talk = dialogue(conversation, losses)
    question, answer = talk.turns[-1]
    row: dict[str, Any] = {"instruction": question, "input": conversation.context, "output": answer}
    if talk.system:
        row["system"] = talk.system
    if talk.turns[:-1]:
        row["history"] = [list(turn) for turn in talk.turns[:-1]]
    return with_fields(row, conversation.fields, ALPACA_KEYS, losses)


def _history(value: Any) -> list[tuple[str, str]]:
    """A list of pairs; in the cell of a table, its JSON text."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise Flaw("wrong_type", f"history: expected pairs of texts, found {value!r:.40}") from error
    pairs = value if isinstance(value, list) else [value]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Flaw("wrong_type", f"history: expected pairs of texts, found {pair!r:.40}")
    return [(asked, answered) for asked, answered in pairs]


def read_qa(row: Mapping[str, Any]) -> Conversation:
    """Several `answers` (a list, or SQuAD's object): the first is the answer, and all stay as a field.

    Raises Flaw: missing_field, not_text, empty_text.
    """
    answer = text_at(row, "answer") if row.get("answer") is not None else _first_answer(row)
    turn = (text_at(row, "question"), answer)
    context = text_at(row, "context", needed=False)
    return checked(from_turns(text_at(row, "system", needed=False), [turn], context, rest_of(row, QA_KEYS)))


def write_qa(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """Raises Flaw: tool_calls, roles_out_of_order, several_turns."""
    talk = dialogue(conversation, losses)
    if len(talk.turns) > 1:
        raise Flaw("several_turns", f"{len(talk.turns)} questions")
    ((question, answer),) = talk.turns
    row = {"question": question, "context": conversation.context, "answer": answer}
    if talk.system:
        row["system"] = talk.system
    return with_fields(row, conversation.fields, QA_KEYS, losses)


def _first_answer(row: Mapping[str, Any]) -> str:
    answers = row.get("answers")
    if isinstance(answers, Mapping):  # SQuAD in the form of `datasets`: {"text": [...], "answer_start": [...]}
        answers = answers.get("text")
    first = answers[0] if isinstance(answers, list) and answers else None
    if isinstance(first, Mapping):  # SQuAD as published: [{"text": ..., "answer_start": ...}]
        first = first.get("text")
    return text_at({"answer": first} if first is not None else {}, "answer")


def read_prompt(row: Mapping[str, Any]) -> Conversation:
    """Both texts, or both lists of messages. Raises Flaw."""
    fields = rest_of(row, PROMPT_KEYS)
    if not isinstance(row.get("prompt"), list):
        return checked(from_turns("", [(text_at(row, "prompt"), text_at(row, "completion"))], "", fields))
    completion = list_at(row, "completion")
    messages = read_messages([*list_at(row, "prompt"), *completion])
    if messages[-len(completion)].role != "assistant":
        raise Flaw("no_answer", "the completion does not begin with the assistant's message")
    return checked(Conversation(messages, fields=fields))


def prompt_writer(
    conversations: Sequence[Conversation],
) -> Callable[[Conversation, Losses], dict[str, Any]]:
    """Texts where texts can hold every conversation, else lists of messages in all: readers expect one type a file."""
    return write_prompt if all(_is_plain(conversation) for conversation in conversations) else write_prompt_messages


def write_prompt(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """Of one question and its answer. Raises Flaw: tool_calls, roles_out_of_order, several_messages."""
    talk = dialogue(Conversation(with_context(conversation, losses)), losses)
    if talk.system or len(talk.turns) > 1:
        raise Flaw("several_messages", f"{len(conversation.messages)} messages")
    ((question, answer),) = talk.turns
    row = {"prompt": question, "completion": answer}
    return with_fields(row, conversation.fields, PROMPT_KEYS, losses)


def write_prompt_messages(conversation: Conversation, losses: Losses) -> dict[str, Any]:
    """The last message is the completion. Raises Flaw: no_answer, where it is not the assistant's."""
    messages = with_context(conversation, losses)
    if messages[-1].role != "assistant" or len(messages) == 1:
        raise Flaw("no_answer", f"ends with the {messages[-1].role}'s message, or has no question")
    row = {"prompt": write_messages(messages[:-1], losses), "completion": write_messages(messages[-1:], losses)}
    return with_fields(row, conversation.fields, PROMPT_KEYS, losses)


def _is_plain(conversation: Conversation) -> bool:
    plain = tuple(Message(message.role, message.content) for message in conversation.messages)
    return plain == conversation.messages and [message.role for message in plain] == ["user", "assistant"]
