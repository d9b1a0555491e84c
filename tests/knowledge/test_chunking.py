from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.knowledge.chunking import ChunkSize, Piece, cut

Plan = list[tuple[str, int, str]]  # kind, level of a heading, text


@dataclass(frozen=True)
class Part:
    kind: str
    text: str
    path: tuple[str, ...]
    page: int | None
    begin: int
    end: int


def words(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer for which each word is a token."""
    return [[match.start() for match in re.finditer(r"\S+", text)] for text in texts]


def letters(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer that says a text is longer when it stands alone, as those do that put a space before it."""
    return [[0, *range(len(text))] for text in texts]


def document(plan: Plan) -> tuple[str, list[Part]]:
    """The text and its blocks; every third block begins a page."""
    parts: list[Part] = []
    path: list[tuple[int, str]] = []
    end = -2
    for number, (kind, level, text) in enumerate(plan):
        if kind == "heading":
            path = [*((above, name) for above, name in path if above < level), (level, text)]
        begin, end = end + 2, end + 2 + len(text)
        parts.append(Part(kind, text, tuple(name for _, name in path), 1 + number // 3, begin, end))
    return "\n\n".join(part.text for part in parts), parts


def cut_plan(plan: Plan, chunk_tokens: int = 8, overlap_tokens: int = 0) -> list[Piece]:
    text, parts = document(plan)
    return cut(text, parts, ChunkSize(chunk_tokens, overlap_tokens), words)


def test_a_short_document_is_one_chunk_and_needs_no_tokenizer() -> None:
    text, parts = document([("heading", 1, "A"), ("paragraph", 0, "b c.")])

    def never(texts: Sequence[str]) -> list[list[int]]:
        raise AssertionError("asked to count")

    assert cut(text, parts, ChunkSize(8, 0), never) == [Piece("A\n\nb c.", ("A",), 1, 0, 7, 0)]
    assert cut("", [], ChunkSize(8, 0), never) == []


def test_cut_at_paragraphs_then_sentences_then_words() -> None:
    plan: Plan = [
        ("paragraph", 0, "aa bb cc dd."),
        ("paragraph", 0, "ee ff."),
        ("paragraph", 0, "Gg hh ii. Jj kk ll mm nn oo pp. Qq."),
        ("paragraph", 0, "r1 r2 r3 r4 r5 r6 r7 r8 r9"),
    ]
    assert [(piece.text, piece.num_tokens) for piece in cut_plan(plan)] == [
        ("aa bb cc dd.\n\nee ff.", 6),
        ("Gg hh ii.", 3),
        ("Jj kk ll mm nn oo pp. Qq.", 8),
        ("r1 r2 r3 r4 r5 r6 r7 r8", 8),
        ("r9", 1),
    ]


def test_a_chunk_stays_in_its_section_and_its_heading_stays_with_its_text() -> None:
    plan: Plan = [
        ("heading", 1, "Bako"),
        ("paragraph", 0, "a1 a2 a3."),
        ("heading", 2, "History"),
        ("paragraph", 0, "b1 b2 b3 b4 b5."),
        ("paragraph", 0, "c1 c2 c3."),
        ("heading", 1, "Tarn"),
        ("paragraph", 0, "d1 d2."),
    ]
    assert [(piece.path, piece.text) for piece in cut_plan(plan)] == [
        (("Bako",), "Bako\n\na1 a2 a3."),
        (("Bako", "History"), "History\n\nb1 b2 b3 b4 b5."),
        (("Bako", "History"), "c1 c2 c3."),
        (("Tarn",), "Tarn\n\nd1 d2."),
    ]


def test_tiny_sections_are_joined_with_the_next_that_is_not_above_them() -> None:
    plan: Plan = [
        ("heading", 1, "Bako"),
        ("heading", 2, "Keeper"),
        ("paragraph", 0, "Lona."),
        ("heading", 2, "Founder"),
        ("paragraph", 0, "a1 a2 a3 a4 a5 a6."),
        ("heading", 2, "Owner"),
        ("paragraph", 0, "Miran."),
        ("heading", 1, "Tarn"),
        ("paragraph", 0, "b1 b2."),
    ]
    assert [(piece.path, piece.text.split("\n\n")) for piece in cut_plan(plan, 40)] == [
        (("Bako",), ["Bako", "Keeper", "Lona.", "Founder", "a1 a2 a3 a4 a5 a6."]),
        (("Bako", "Owner"), ["Owner", "Miran."]),
        (("Tarn",), ["Tarn", "b1 b2."]),
    ]


def test_headings_without_text_belong_to_the_text_below() -> None:
    plan: Plan = [("heading", 1, "One"), ("heading", 3, "x"), ("heading", 2, "Two"), ("paragraph", 0, "a b c d e f.")]
    assert [(piece.path, piece.text) for piece in cut_plan(plan, 12)] == [
        (("One", "Two"), "One\n\nx\n\nTwo\n\na b c d e f."),
    ]


def test_a_table_that_fits_is_whole_and_a_longer_one_repeats_its_header() -> None:
    table = "\n".join(["Name | Age", *(f"p{n} | {n}" for n in range(5))])  # 3 tokens a row
    plan: Plan = [("paragraph", 0, "a1 a2 a3 a4 a5 a6 a7 a8 a9 a10."), ("table", 0, table), ("paragraph", 0, "End.")]
    assert [piece.text for piece in cut_plan(plan, 20)] == [
        "a1 a2 a3 a4 a5 a6 a7 a8 a9 a10.",
        f"{table}\n\nEnd.",
    ]
    pieces = cut_plan(plan, 9)
    assert [piece.text for piece in pieces] == [
        "a1 a2 a3 a4 a5 a6 a7 a8 a9",
        "a10.\n\nName | Age\np0 | 0",
        "Name | Age\np1 | 1\np2 | 2",
        "Name | Age\np3 | 3\np4 | 4",
        "End.",
    ]
    text = document(plan)[0]
    assert [text[piece.begin : piece.end] for piece in pieces][2] == "p1 | 1\np2 | 2"  # the offsets leave it out


def test_overlap_gives_way_to_a_table_that_fits_without_it() -> None:
    table = "A | B\n" + "\n".join(f"{n} | {n}" for n in range(5))  # 18 tokens
    plan: Plan = [("paragraph", 0, "One two three four. Five six."), ("table", 0, table)]
    assert [piece.text for piece in cut_plan(plan, 18, 4)] == ["One two three four. Five six.", table]


def test_overlap_is_whole_sentences_or_else_words() -> None:
    plan: Plan = [("paragraph", 0, "One two three. Four five six. Seven eight. Nine ten eleven twelve.")]
    assert [piece.text for piece in cut_plan(plan, 8, 3)] == [
        "One two three. Four five six. Seven eight.",
        "Seven eight. Nine ten eleven twelve.",
    ]
    long = [("paragraph", 0, " ".join(f"w{n}" for n in range(12)))]
    assert [piece.text for piece in cut_plan(long, 8, 2)] == ["w0 w1 w2 w3 w4 w5 w6 w7", "w6 w7 w8 w9 w10 w11"]


def test_pages_are_those_on_which_chunks_begin() -> None:
    plan: Plan = [("paragraph", 0, f"p{n} a b c d e f g") for n in range(5)]
    assert [piece.page for piece in cut_plan(plan)] == [1, 1, 1, 2, 2]


def test_sizes_that_make_no_sense() -> None:
    for chunk_tokens, overlap_tokens in ((7, 0), (8, 5), (8, -1)):
        with pytest.raises(ValueError, match="must be at least"):
            ChunkSize(chunk_tokens, overlap_tokens)


paragraphs = st.text("ab. é\U0001f600", min_size=1, max_size=80).map(lambda text: " ".join(text.split()) or "x")
rows = st.lists(st.text("ab1", min_size=1, max_size=12), min_size=2, max_size=12).map(" | 1\n".join)
plans = st.lists(
    st.one_of(
        st.tuples(st.just("paragraph"), st.just(0), paragraphs),
        st.tuples(st.just("table"), st.just(0), rows),
        st.tuples(st.just("heading"), st.integers(1, 3), st.text("XYZ", min_size=1, max_size=9)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300)
@given(plans, st.integers(8, 40), st.floats(0, 0.5), st.sampled_from([words, letters]))
def test_chunks_hold_the_whole_text_within_the_limit(plan: Plan, chunk_tokens: int, share: float, tokens) -> None:  # type: ignore[no-untyped-def]
    text, parts = document(plan)
    overlap_tokens = int(chunk_tokens * share)
    pieces = cut(text, parts, ChunkSize(chunk_tokens, overlap_tokens), tokens)
    fresh = 0
    for piece in pieces:
        said = text[piece.begin : piece.end]
        assert piece.text.endswith(said)
        if piece.text != said:  # a table's header is repeated
            assert any(p.kind == "table" and p.text.startswith(piece.text[: -len(said)]) for p in parts)
        assert said == said.strip()
        assert len(tokens([piece.text])[0]) <= chunk_tokens
        assert piece.num_tokens in (0, len(tokens([piece.text])[0]))
        assert piece.end > fresh  # every chunk says something new,
        assert not text[fresh : piece.begin].strip()  # nothing is left out,
        assert len(words([text[piece.begin : max(fresh, piece.begin)]])[0]) <= overlap_tokens  # and not much said twice
        assert piece.page == next(p.page for p in reversed(parts) if p.begin <= piece.begin)
        fresh = piece.end
    assert fresh == len(text)
