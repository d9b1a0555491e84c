from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generation.text_pieces import TextPieces


class Words:
    """Like a SentencePiece tokenizer: `_` at the start of a token is a space, which the start of a text loses."""

    tokens = ("_the", "_mill", "s", "_", "!", "")

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.tokens[i] for i in ids).replace("_", " ").removeprefix(" ")


def pieces_of(tokenizer: Any, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    writer = TextPieces(tokenizer, stop)
    pieces = []
    for token in ids:
        pieces.append(writer.add(token))
        if writer.stopped:
            return pieces, True
    return [*pieces, writer.rest()], writer.stopped


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_each_character_is_shown_when_it_is_whole(byte_tokenizer: Any, text: str) -> None:
    pieces, _ = pieces_of(byte_tokenizer, byte_tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert [piece for piece in pieces if piece] == list(text)


@given(st.binary(max_size=20))
def test_any_bytes_come_out_as_if_decoded_at_once(byte_tokenizer: Any, data: bytes) -> None:
    pieces, _ = pieces_of(byte_tokenizer, [byte + 3 for byte in data])
    assert "".join(pieces) == data.decode("utf-8", errors="replace")


@given(st.lists(st.integers(0, len(Words.tokens) - 1), max_size=12))
def test_spaces_between_tokens_are_kept(ids: list[int]) -> None:
    pieces, _ = pieces_of(Words(), ids)
    assert "".join(pieces) == Words().decode(ids)


@given(st.text("ab\n", max_size=15), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=2))
def test_nothing_of_a_stop_text_is_shown(byte_tokenizer: Any, text: str, stop: list[str]) -> None:
    pieces, stopped = pieces_of(byte_tokenizer, byte_tokenizer.encode(text), tuple(stop))
    ends = [
        (text.find(one) + len(one), text.find(one))
        for one in stop
        if one in text
    ]  # fmt: skip
    if not ends:
        assert ("".join(pieces), stopped) == (text, False)
        return
    first_seen = min(end for end, _ in ends)
    begins = min(text[:first_seen].find(one) for one in stop if one in text[:first_seen])
    assert ("".join(pieces), stopped) == (text[:begins], True)


@pytest.mark.parametrize("stop", [("",), ()])
def test_an_empty_stop_text_stops_nothing(byte_tokenizer: Any, stop: tuple[str, ...]) -> None:
    assert pieces_of(byte_tokenizer, byte_tokenizer.encode("ab"), stop) == (["a", "b", ""], False)


def test_what_may_become_a_stop_text_is_held_back_until_it_is_none(byte_tokenizer: Any) -> None:
    pieces, stopped = pieces_of(byte_tokenizer, byte_tokenizer.encode("a--b--"), ("---",))
    assert (pieces, stopped) == (["a", "", "", "--b", "", "", "--"], False)
