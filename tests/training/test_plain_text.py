"""Books as rows."""

from __future__ import annotations

from typing import Any

from stages.knowledge.book import section_texts
from stages.knowledge.records import Chunk
from stages.training.plain_text import packed_rows


def chunk(number: int, section: str, text: str) -> Chunk:
    return Chunk(f"book-{number}", "book", "book", section, number, text)


def test_chunks_of_a_section_are_one_text() -> None:
    chunks = [chunk(1, "I", "a"), chunk(2, "I", "b"), chunk(3, "II", "c"), chunk(4, "I", "d")]
    assert section_texts(chunks) == ["a\nb", "c", "d"]


def test_rows_are_the_whole_stream_with_begin_and_end_tokens(tiny_tokenizer: Any) -> None:
    rows = packed_rows(tiny_tokenizer, ["abc", "defg"], 4, "book")
    text = "".join(tiny_tokenizer.decode(row.input_ids) for row in rows)
    assert text == "<|begin|>abc<|end|><|begin|>defg<|end|>"
    assert [len(row.input_ids) for row in rows] == [4, 4, 3]
    assert all(row.num_trained == len(row.input_ids) for row in rows)
    assert [row.id for row in rows] == ["book-0", "book-1", "book-2"]


def test_a_single_last_token_is_no_row(tiny_tokenizer: Any) -> None:
    assert [len(row.input_ids) for row in packed_rows(tiny_tokenizer, ["abc"], 4, "book")] == [4]
