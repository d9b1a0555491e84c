"""A -> B -> A gives A again where B can hold it; where it cannot, the loss is counted or the record rejected."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.formats.conversation import Conversation, Flaw, Losses, Message, ToolCall, from_turns
from stages.formats.formats import FORMATS

LETTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(LETTERS, min_size=1, max_size=30).filter(lambda text: bool(text.strip()))
FIELDS = st.dictionaries(st.sampled_from(["source", "weight", "Автор"]), TEXT | st.integers() | st.none(), max_size=2)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)
SYSTEM = st.just("") | TEXT
CALL = st.builds(
    ToolCall,
    st.just(""),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2).map(lambda v: json.dumps(v, ensure_ascii=False)),
)


@st.composite
def dialogues(draw: st.DrawFn, context: bool = True) -> Conversation:
    """Questions and answers, perhaps with a system text and a context."""
    return from_turns(draw(SYSTEM), draw(TURNS), draw(SYSTEM) if context else "", draw(FIELDS))


@st.composite
def talks(draw: st.DrawFn) -> Conversation:
    """Also with calls of tools and what they gave."""
    messages = list(draw(dialogues(context=False)).messages)
    for calls in draw(st.lists(st.lists(CALL, min_size=1, max_size=2), max_size=2)):
        named = tuple(ToolCall(f"c{len(messages)}-{n}", call.name, call.arguments) for n, call in enumerate(calls))
        messages.append(Message("user", draw(TEXT)))
        messages.append(Message("assistant", draw(SYSTEM), named))
        messages += [Message("tool", draw(st.just("") | TEXT), tool_call_id=call.id) for call in named]
        messages.append(Message("assistant", draw(TEXT)))
    return Conversation(tuple(messages), fields=draw(FIELDS))


def through(name: str, conversation: Conversation) -> tuple[Conversation, Losses]:
    """Written in the format, as JSON, and read again."""
    losses: Losses = Counter()
    form = FORMATS[name]
    row: dict[str, Any] = form.writer([conversation])(conversation, losses)
    assert form.fits(row)
    return form.read(json.loads(json.dumps(row))), +losses


@given(talks(), st.sampled_from(["chat", "sharegpt", "prompt_completion"]))
@settings(max_examples=300)
def test_formats_of_messages_hold_every_conversation(conversation: Conversation, name: str) -> None:
    assert through(name, conversation) == (conversation, Counter())


@given(dialogues())
def test_alpaca_holds_every_dialogue_with_its_context(conversation: Conversation) -> None:
    assert through("alpaca", conversation) == (conversation, Counter())


@given(dialogues())
def test_qa_holds_one_turn(conversation: Conversation) -> None:
    turns = [message for message in conversation.messages if message.role == "user"]
    if len(turns) == 1:
        assert through("qa", conversation) == (conversation, Counter())
        return
    try:
        through("qa", conversation)
    except Flaw as flaw:
        assert flaw.reason == "several_turns"
    else:
        raise AssertionError("several turns in one row")


@given(dialogues(), st.sampled_from(["chat", "sharegpt", "prompt_completion"]))
def test_a_joined_context_is_counted_and_nothing_else_changes(conversation: Conversation, name: str) -> None:
    assume(conversation.context.strip())
    found, losses = through(name, conversation)
    assert losses == {"context_joined": 1}
    place = max(n for n, message in enumerate(conversation.messages) if message.role == "user")
    question = conversation.messages[place].content
    assert found.messages[place].content == f"{question}\n\n{conversation.context}"
    assert len(found.messages) == len(conversation.messages)


@given(talks(), st.sampled_from(["alpaca", "qa"]))
def test_tools_do_not_fit_and_are_named(conversation: Conversation, name: str) -> None:
    assume(conversation.tool_names)
    try:
        through(name, conversation)
    except Flaw as flaw:
        assert flaw.reason == "tool_calls"
        assert flaw.detail == f"calls {', '.join(conversation.tool_names)}"
    else:
        raise AssertionError("a row without messages holds no calls")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    ["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "text", "type"]
                )
                | st.text(max_size=2),
                v,
            )
        ),
    ),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(
        ["messages", "conversations", "instruction", "output", "history", "question", "answers", "prompt", "completion"]
    ),
)
@settings(max_examples=500)
def test_wild_rows_are_read_or_rejected_and_never_crash(value: Any, name: str, key: str) -> None:
    row = {group[0]: "x" for group in FORMATS[name].signs} | {key: value}
    try:
        conversation = FORMATS[name].read(row)
    except Flaw as flaw:
        assert flaw.reason and flaw.reason == flaw.reason.lower()
        return
    assert any(message.role == "assistant" for message in conversation.messages)
