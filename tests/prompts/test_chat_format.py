from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.prompts.chat import ChatFormat

MESSAGES = [{"role": "user", "content": "Q"}]


class Letters:
    """One token a character; renders a turn as `role:content|`."""

    chat_template = "x"
    all_special_tokens = ["[END]", "[ENDS]", "|"]

    def __init__(self, before_answer: str = "", change: Any = str) -> None:
        self.added_tokens_decoder: dict[int, Any] = {}
        self.before_answer, self.change = before_answer, change

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        answered = messages[-1]["role"] == "assistant"
        turns = "".join(f"{m['role'][0]}:{self.change(m['content'])}|" for m in messages)
        return (self.before_answer if answered else "") + turns + ("a:" if add_generation_prompt else "")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_prompt_and_completion_meet_without_a_gap() -> None:
    chat = ChatFormat(Letters())
    assert text(chat.prompt_ids(MESSAGES)) == "u:Q|a:"
    assert text(chat.completion_ids(MESSAGES, "yes")) == "yes|"


def test_a_template_that_moves_the_prompt_is_refused() -> None:
    with pytest.raises(DataError, match="renders a prompt differently"):
        ChatFormat(Letters(before_answer="!")).completion_ids(MESSAGES, "yes")


def test_a_template_that_changes_the_answer_is_refused() -> None:
    with pytest.raises(DataError, match="changes the answer's text"):
        ChatFormat(Letters(change=str.upper)).completion_ids(MESSAGES, "yes")


def test_the_longer_token_is_broken_up_first_and_short_ones_are_left() -> None:
    chat = ChatFormat(Letters())
    assert chat.special == ["[ENDS]", "[END]"]
    assert chat.escape("a|b [ENDS]") == "a|b [\u2060ENDS]"


@given(st.lists(st.sampled_from(["[END]", "[ENDS]", "[", "END", "]", "x"])).map("".join))
def test_no_special_token_is_left(wild: str) -> None:
    escaped = ChatFormat(Letters()).escape(wild)
    assert "[END]" not in escaped and "[ENDS]" not in escaped
    assert escaped.replace("\u2060", "") == wild


def test_without_a_tokenizer_nothing_is_escaped() -> None:
    assert ChatFormat().escape("[END]") == "[END]"
    assert ChatFormat().special == []
