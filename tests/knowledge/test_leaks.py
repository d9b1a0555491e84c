from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.knowledge.leaks import Leak, Quote, find_leaks, find_quotes, quoted_chunks, refuse_leaks
from stages.knowledge.records import QA, Chunk, Example

LONG = "the founder of the mill Bako is Lona Tir who came by ship from far away"
KINDS = {"book-1": "book", "qa-1": "qa"}


def example(name: str, answer: str, documents: tuple[str, ...] = (), question: str = "?", **more: object) -> Example:
    values = {"document_ids": ["book-1"] * len(documents), "documents_kind": "retrieved", "group": name, **more}
    return Example(name, "qa", question, answer, list(documents), **values)  # type: ignore[arg-type]


def leaks(train: list[Example], test: list[Example], chunks: dict[str, str] | None = None) -> list[str]:
    parts = {"train": train, "validation": [], "test": test}
    return [str(leak) for leak in find_leaks(parts, chunks or {}, KINDS, 0.8)]


def test_find_quotes() -> None:
    changed = LONG.replace("far", "very far")  # 12 of 14 trigrams stand
    assert find_quotes([LONG], [f"Well, {LONG.upper()}! So.", "the founder of the mill", changed], 0.8) == [
        Quote(0, 0, 1.0),
        Quote(0, 2, pytest.approx(12 / 14)),  # type: ignore[arg-type]
    ]


def test_short_answers_are_quoted_only_by_themselves() -> None:
    assert find_quotes(["Yes.", "Lona Tir", "..."], ["yes", "He said yes to Lona Tir.", "...", "Lona Tir!"], 0.8) == [
        Quote(0, 0, 1.0),
        Quote(1, 3, 1.0),
    ]


def test_leaks_are_named() -> None:
    test = [example("t1", LONG)]
    assert leaks([example("a", "No.")], test) == []
    assert leaks([example("a", f"So {LONG}")], test) == ["t1: 100% of its answer stands in the answer of a"]
    assert leaks([example("a", "No.", (f"{LONG}\nMore.",))], test) == [
        "t1: 100% of its answer stands in a document of a"
    ]
    assert leaks([example("a", "No.", question=f"{LONG}?")], test) == [
        "t1: 100% of its answer stands in the question of a"
    ]
    assert leaks([example("a", "No.")], test, {"book-7": LONG}) == ["t1: 100% of its answer stands in chunk book-7"]
    assert leaks([example("a", "No.", group="g")], [example("t1", LONG, group="g")]) == [
        "t1: its group g is also trained on (a)"
    ]
    assert leaks([example("a", "No.", ("x",), document_ids=["qa-1"])], test) == [
        "a: the qa record qa-1 is among its documents"
    ]


def test_the_abstaining_answer_is_no_leak() -> None:
    assert leaks([example("a", LONG, abstains=True)], [example("t1", LONG, abstains=True), example("t2", LONG)]) == []


def test_refusal_names_rows_and_counts_the_rest() -> None:
    refuse_leaks([])
    with pytest.raises(DataError, match=r"(?s)12 leaks.*t0: x.*t9: x.*and 2 more"):
        refuse_leaks([Leak(f"t{n}", "x") for n in range(12)])


@given(
    st.lists(st.text(alphabet="abcdefg ", min_size=1, max_size=30), min_size=1, max_size=8),
    st.lists(st.sampled_from("klmnopqrst"), min_size=6, max_size=30),
    st.integers(0, 7),
    st.sampled_from(["answer", "question", "document", "chunk"]),
)
def test_a_planted_leak_is_always_found(texts: list[str], planted: list[str], at: int, where: str) -> None:
    answer = " ".join(planted)
    host = f"{texts[at % len(texts)]}. {answer.upper()} {texts[0]}"
    train = [example(f"a{n}", text) for n, text in enumerate(texts)]
    if where == "answer":
        train.append(example("planted", host))
    elif where == "question":
        train.append(example("planted", "x", question=host))
    elif where == "document":
        train.append(example("planted", "x", (host,)))
    chunks = {"planted": host} if where == "chunk" else {}
    found = leaks(train, [example("t1", answer)], chunks)
    assert [line for line in found if line.startswith("t1: ") and "planted" in line]


def chunk(number: int, text: str, section: str = "s") -> Chunk:
    return Chunk(f"book-{number}", "book", "b", section, number, text)


def test_quoted_chunks_in_both_directions_and_across_chunk_ends() -> None:
    first, second = LONG, "and there she built a bridge of stone over the cold and rapid river"
    chunks = [chunk(1, "Nothing here."), chunk(2, first), chunk(3, second), chunk(4, "Other things.", "next")]
    rows = [
        QA("qa-1", "qa", "?", first),
        QA("qa-2", "qa", "?", f"Well: {second}. And much else, of which no book has ever told anybody anything."),
        QA("qa-3", "qa", "?", " ".join(first.split()[8:] + second.split()[:8])),  # half of each
        QA("qa-4", "qa", "?", "Something that stands nowhere in this book at all."),
    ]
    assert quoted_chunks(rows, chunks, 1, 0.8) == {
        "qa-1": {"book-2"},
        "qa-2": {"book-3"},
        "qa-3": {"book-2", "book-3"},
    }
    assert "qa-3" not in quoted_chunks(rows, chunks, 0, 0.8)
