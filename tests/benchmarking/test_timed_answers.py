"""Streams of a chat: whole, cut, broken, and in any split into chunks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.benchmarking.replies import BrokenReplyError, Reply
from stages.benchmarking.timed_answers import streamed_answer, whole_answer

TEXT = 'Lo\u2028na "Tir" says: ж\x85'


def stream_of(*events: object) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def piece(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def read(data: bytes, sizes: list[int] | None = None, key: str = "") -> Reply:
    async def chunks() -> AsyncIterator[bytes]:
        rest, at = data, 0
        while rest:
            size = sizes[at % len(sizes)] if sizes else len(rest)
            yield rest[:size]
            rest, at = rest[size:], at + 1

    return asyncio.run(streamed_answer(chunks(), 0.0, key))


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_a_stream_reads_the_same_however_it_is_cut_into_chunks(sizes: list[int]) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
    reply = read(b"event: message\n" + stream_of(piece(TEXT), piece("!"), END, usage, "[DONE]"), sizes)
    assert (reply.text, reply.finish_reason) == (TEXT + "!", "stop")
    assert (reply.num_prompt_tokens, reply.num_completion_tokens, reply.num_tokens) == (7, 5, 5)
    assert reply.first_token_s is not None and len(reply.gaps_s) == 1


def test_without_usage_the_pieces_are_counted() -> None:
    assert read(stream_of(piece("a"), piece("b"), piece("c"), END)).num_tokens == 3


def test_a_thought_is_a_token_and_no_text() -> None:
    reply = read(stream_of({"choices": [{"delta": {"reasoning_content": "hm"}}]}, piece("a"), END))
    assert (reply.text, reply.num_tokens) == ("a", 2)


def test_the_sources_of_our_server_are_kept() -> None:
    sources = [{"id": "book-1"}]
    assert read(stream_of({"choices": [], "sources": sources}, piece("a"), END), key="sources").documents == sources
    assert read(stream_of({"choices": [], "sources": sources}, piece("a"), END)).documents == []


@pytest.mark.parametrize(
    ("data", "failure", "detail"),
    [
        (stream_of(piece("a")), "cut", "after 1 pieces"),
        (stream_of(), "empty", "after 0 pieces"),
        (stream_of(piece("a"), "{broken"), "garbage", "no events of JSON: Expecting property name"),
        (stream_of(piece("a"), "[1]"), "garbage", "no JSON object"),
        (stream_of({"choices": ["a"]}), "garbage", "no choice"),
        (stream_of('{"a": ' + "[" * 100_000), "garbage", "no events of JSON"),
        (b"<html>busy</html>\n", "garbage", "not an event stream"),
        (stream_of(piece("a"), {"error": {"message": "gone"}}), "error_event", "gone"),
    ],
)
def test_what_is_not_whole_says_why(data: bytes, failure: str, detail: str) -> None:
    with pytest.raises(BrokenReplyError) as error:
        read(data)
    assert error.value.failure == failure
    assert detail in error.value.detail and len(error.value.detail) <= 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "usage", "error", "finish_reason", "message", "prompt_tokens"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4))
def test_whatever_a_server_sends_is_a_reply_or_a_reason(events: list[object]) -> None:
    for attempt in (lambda: read(stream_of(*map(json.dumps, events))), lambda: whole_answer(json.dumps(events), 0.0)):
        try:
            assert isinstance(attempt().num_tokens, int)
        except BrokenReplyError as error:
            assert error.failure in ("garbage", "cut", "empty", "error_event")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["choices", "usage", "error"]), JSON))
def test_whatever_comes_in_one_piece_is_a_reply_or_a_reason(value: dict[str, object]) -> None:
    try:
        assert isinstance(whole_answer(json.dumps(value), 0.0).text, str)
    except BrokenReplyError as error:
        assert error.failure in ("garbage", "error_event")


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    message = {"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    reply = whole_answer(json.dumps(message), 0.0)
    assert (reply.text, reply.first_token_s, reply.num_tokens) == ("a b", None, 2)
    for text in ("{}", '{"choices": []}', '{"choices": [{"message": null}]}', "no"):
        with pytest.raises(BrokenReplyError):
            whole_answer(text, 0.0)
