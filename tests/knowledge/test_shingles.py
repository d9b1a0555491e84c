from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.near_duplicates import Groups, near_duplicates
from stages.knowledge.shingles import Shingler, quoting_pairs, similar_pairs, words

SETS = st.lists(st.frozensets(st.integers(0, 12), max_size=9), max_size=12)
THRESHOLDS = st.sampled_from([0.3, 0.5, 0.6, 0.8, 0.85, 1.0])


def test_worked_example() -> None:
    shingler = Shingler()
    a, b = shingler("She left. The door stayed open."), shingler("she left; the door stayed shut")
    assert len(a) == len(b) == 4
    assert list(similar_pairs([a, b], 0.6)) == [(0, 1)]
    assert list(similar_pairs([a, b], 0.61)) == []
    assert list(quoting_pairs([a], [b], 0.75)) == [(0, 0, 0.75)]


def test_short_and_empty_texts() -> None:
    shingler = Shingler()
    assert shingler("...") == frozenset()
    assert shingler("Yes!") == shingler("yes") != shingler("no")
    assert shingler("a b") != shingler("b a")
    assert shingler("a b c", "d e f") == shingler("a b c") | shingler("d e f")
    assert list(similar_pairs([frozenset(), frozenset()], 0.5)) == []


def test_words_ignore_case_and_punctuation() -> None:
    assert words("Ёж, «ЁЖ» — don't") == ["ёж", "ёж", "don", "t"]


@given(SETS, THRESHOLDS)
def test_similar_pairs_are_those_of_brute_force(sets: list[frozenset[int]], threshold: float) -> None:
    groups, expected = Groups(range(len(sets))), Groups(range(len(sets)))
    for i, j in similar_pairs(sets, threshold):
        assert i < j
        assert len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9
        groups.join(i, j)
    for i in range(len(sets)):
        for j in range(i):
            if sets[i] and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9:
                expected.join(i, j)
    assert groups.members() == expected.members()


@given(SETS, SETS, THRESHOLDS)
def test_quoting_pairs_are_those_of_brute_force(
    quotes: list[frozenset[int]], texts: list[frozenset[int]], threshold: float
) -> None:
    expected = [
        (q, t, len(quote & text) / len(quote))
        for q, quote in enumerate(quotes)
        for t, text in enumerate(texts)
        if quote and len(quote & text) / len(quote) >= threshold - 1e-9
    ]
    assert list(quoting_pairs(quotes, texts, threshold)) == expected


def test_near_duplicates() -> None:
    long = "the founder of the mill bako is lona tir and she lived there for many years with her dog"
    texts = [(long,), (long.upper() + "!",), (f"{long} once",), ("something else entirely, I say",)]
    assert sorted(near_duplicates(texts, 0.85)) == [(0, 1), (0, 2)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    groups = Groups(range(10))
    for one, other in pairs:
        groups.join(one, other)
    members = groups.members()
    assert sorted(n for group in members.values() for n in group) == list(range(10))
    assert all(first == min(group) for first, group in members.items())
    assert all(groups.first(one) == groups.first(other) for one, other in pairs)
    assert len(members) >= 10 - len(pairs)
