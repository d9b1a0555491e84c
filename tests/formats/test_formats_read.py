"""What each format's rows become, and why rows are refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from stages.formats.conversation import Conversation, Flaw, Losses, Message, ToolCall
from stages.formats.first_turns import FirstTurn, first_turn
from stages.formats.formats import FORMATS, format_of

CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
TALK = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "Weather in Oslo?"),
        Message("assistant", "", (ToolCall("c1", "get_weather", '{"city": "Oslo"}'),)),
        Message("tool", "rain", tool_call_id="c1"),
        Message("assistant", "It rains."),
    )
)
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It rains."},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Weather in Oslo?"},
        {
            "from": "function_call",
            "value": '{"id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}}',
        },
        {"from": "observation", "value": "rain", "tool_call_id": "c1"},
        {"from": "gpt", "value": "It rains."},
    ]
}


@pytest.mark.parametrize(("name", "row"), [("chat", CHAT), ("sharegpt", SHAREGPT)])
def test_tool_calls_exactly(name: str, row: dict[str, Any]) -> None:
    form = FORMATS[name]
    losses: Losses = Counter()
    assert form.read(row) == TALK
    assert form.writer([TALK])(TALK, losses) == row
    assert +losses == {}
    assert TALK.tool_names == ["get_weather"]


def question(text: str = "Who?", answer: str = "Lona.", context: str = "", **fields: Any) -> Conversation:
    return Conversation((Message("user", text), Message("assistant", answer)), context, fields)


@pytest.mark.parametrize(
    ("name", "row", "conversation"),
    [
        (
            "alpaca",
            {"instruction": "Who?", "input": "Bako.", "output": "Lona.", "n": 1},
            question(context="Bako.", n=1),
        ),
        ("alpaca", {"instruction": "Who?", "input": None, "output": "Lona."}, question()),
        ("qa", {"question": "Who?", "answer": "Lona.", "context": "Bako."}, question(context="Bako.")),
        ("qa", {"question": "Who?", "answers": ["Lona."], "id": 7}, question(answers=["Lona."], id=7)),
        (
            "qa",
            {"question": "Who?", "answers": {"text": ["Lona.", "L."], "answer_start": [3, 3]}},
            question(answers={"text": ["Lona.", "L."], "answer_start": [3, 3]}),
        ),
        (
            "qa",
            {"question": "Who?", "answers": [{"text": "Lona.", "answer_start": 3}]},
            question(answers=[{"text": "Lona.", "answer_start": 3}]),
        ),
        ("prompt_completion", {"prompt": "Who?", "completion": "Lona."}, question()),
        (
            "prompt_completion",
            {
                "prompt": [{"role": "user", "content": "Who?"}],
                "completion": [{"role": "assistant", "content": "Lona."}],
            },
            question(),
        ),
        (
            "chat",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "value": "o?"}]},
                    {"role": "assistant", "content": "Lona.", "function_call": None},
                ]
            },
            question(),
        ),
        (
            "sharegpt",
            {"conversations": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lona."}]},
            question(),
        ),
    ],
)
def test_rows_exactly(name: str, row: dict[str, Any], conversation: Conversation) -> None:
    assert FORMATS[name].read(row) == conversation
    assert format_of(row) == name


def test_history_comes_before_the_question_and_from_a_cell_too() -> None:
    row: dict[str, Any] = {"instruction": "Now?", "output": "No.", "system": "S", "history": [["Who?", "Lona."]]}
    texts = ["S", "Who?", "Lona.", "Now?", "No."]
    assert [message.content for message in FORMATS["alpaca"].read(row).messages] == texts
    row["history"] = '[["Who?", "Lona."]]'
    assert [message.content for message in FORMATS["alpaca"].read(row).messages] == texts


def messages(*values: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Who?"}, *values]}


@pytest.mark.parametrize(
    ("name", "row", "reason", "detail"),
    [
        ("chat", {"messages": []}, "no_messages", "messages is an empty list"),
        ("chat", {"messages": "hi"}, "wrong_type", "messages is 'hi', not a list"),
        ("chat", messages("hi"), "wrong_type", "message 2: expected an object, found 'hi'"),
        ("chat", messages(), "no_answer", "no message is the assistant's"),
        ("chat", messages({"role": "bot", "content": "x"}), "unknown_role", "message 2: role 'bot'; known: system"),
        ("chat", messages({"role": "assistant", "content": " "}), "empty_message", "message 2 (assistant) is empty"),
        ("chat", messages({"role": "assistant", "content": 7}), "not_text", "message 2: content is 7"),
        (
            "chat",
            messages({"role": "assistant", "content": [{"type": "image_url"}]}),
            "not_text",
            "message 2: a part of the content is image_url",
        ),
        (
            "chat",
            messages({"role": "assistant", "function_call": {"name": "f"}}),
            "tool_calls_of_old_form",
            "message 2: function_call",
        ),
        ("chat", messages({"role": "assistant", "tool_calls": [{}]}), "broken_tool_call", "message 2: no function"),
        (
            "chat",
            messages({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
            "broken_tool_call",
            "message 2: arguments are not JSON",
        ),
        (
            "chat",
            messages({"role": "tool", "content": "x", "tool_call_id": "c9"}),
            "tool_result_alone",
            "message 2: nothing called c9",
        ),
        ("sharegpt", {"conversations": [{"from": "alien", "value": "x"}]}, "unknown_role", "turn 1: from 'alien'"),
        (
            "sharegpt",
            {"conversations": [{"from": "function_call", "value": "get()"}]},
            "broken_tool_call",
            "turn 1: not JSON: 'get()'",
        ),
        ("alpaca", {"instruction": "Who?", "output": ""}, "empty_text", "output is empty"),
        ("alpaca", {"instruction": None, "output": "x"}, "missing_field", "instruction is null"),
        ("alpaca", {"instruction": "a", "output": "b", "history": "x"}, "wrong_type", "history: expected pairs"),
        ("qa", {"question": "Who?", "answers": []}, "missing_field", "answer is missing"),
        ("qa", {"question": "Who?", "answer": 3}, "not_text", "answer is 3"),
        (
            "prompt_completion",
            {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "user", "content": "b"}]},
            "no_answer",
            "the completion does not begin",
        ),
    ],
)
def test_flaws_exactly(name: str, row: dict[str, Any], reason: str, detail: str) -> None:
    with pytest.raises(Flaw) as caught:
        FORMATS[name].read(row)
    assert (caught.value.reason, caught.value.detail[: len(detail)]) == (reason, detail)


def test_first_turns() -> None:
    assert first_turn(question(context="Bako."), join_context=True) == FirstTurn("Who?\n\nBako.", "Lona.", 0, False)
    assert first_turn(question(context="Bako."), join_context=False) == FirstTurn("Who?", "Lona.", 0, False)
    longer = Conversation((Message("system", "S"), *question().messages, Message("user", "And?")), "Bako.")
    assert first_turn(longer, join_context=True) == FirstTurn("Who?", "Lona.", 1, True)
    with pytest.raises(Flaw, match="tool_calls"):
        first_turn(TALK, join_context=False)
