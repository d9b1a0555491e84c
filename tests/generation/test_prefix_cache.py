"""Columns are made from all tokens up to their own, so that a column in a wrong place shows."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.generation.prefix_cache import PrefixCache

TOKEN_BYTES = 2 * 2 * 8  # two layers' worth of one head, one dimension, float64
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=10)


def columns_of(ids: list[int]) -> list[Any]:
    """Two layers, keys and values [1, T, 1]: the tokens so far as a number in base 4."""
    numbers, number = [], 0
    for token in ids:
        number = 4 * number + token + 1
        numbers.append(float(number))
    keys = torch.tensor(numbers, dtype=torch.float64)[None, :, None]
    return [keys, -keys, 2 * keys, -2 * keys]


def num_found(cache: PrefixCache, model: str, ids: list[int]) -> int:
    """How many tokens are known; their columns are the right ones."""
    found = cache.find(model, ids)
    num = found[0].shape[1] if found else 0
    for part, expected in zip(found, columns_of(ids[:num]), strict=bool(found)):
        assert torch.equal(part, expected)
    return num


def held_bytes(cache: PrefixCache) -> int:
    waiting, total = list(cache._roots.values()), 0
    while waiting:
        node = waiting.pop()
        waiting += node.children.values()
        total += node.num_bytes
    return total


@given(st.lists(st.tuples(st.sampled_from("ab"), PROMPTS), max_size=12), st.tuples(st.sampled_from("ab"), PROMPTS))
def test_the_longest_known_beginning_is_found(added: list[tuple[str, list[int]]], asked: tuple[str, list[int]]) -> None:
    cache = PrefixCache(10**6)
    for model, ids in added:
        cache.add(model, ids, columns_of(ids))
    model, wanted = asked
    known = {tuple(ids[:n]) for owner, ids in added if owner == model for n in range(1, len(ids) + 1)}
    assert num_found(cache, model, wanted) == max(
        (n for n in range(len(wanted) + 1) if tuple(wanted[:n]) in known), default=0
    )
    distinct = {(owner, *ids[:n]) for owner, ids in added for n in range(1, len(ids) + 1)}
    assert cache.num_bytes == held_bytes(cache) == TOKEN_BYTES * len(distinct)  # nothing is held twice


@given(st.lists(st.tuples(st.sampled_from("ab"), PROMPTS, st.booleans()), max_size=30), st.integers(0, 14))
def test_bytes_are_bounded_and_what_is_left_is_right(asked: list[tuple[str, list[int], bool]], max_tokens: int) -> None:
    cache = PrefixCache(max_tokens * TOKEN_BYTES)
    for model, ids, add in asked:
        num_found(cache, model, ids)
        if add:
            cache.add(model, ids, columns_of(ids))
        assert cache.num_bytes == held_bytes(cache) <= cache.max_bytes
        if add and len(ids) <= max_tokens:
            assert num_found(cache, model, ids) == len(ids)  # the newest stays
    cache.forget("a")
    assert all(num_found(cache, "a", ids) == 0 for _, ids, _ in asked)
    cache.forget("b")
    assert cache.num_bytes == 0 and not cache._nodes


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    cache = PrefixCache(6 * TOKEN_BYTES)
    for ids in ([0, 0, 1], [0, 0, 2], [1, 1]):
        cache.add("a", ids, columns_of(ids))
    assert cache.num_bytes == 6 * TOKEN_BYTES
    assert num_found(cache, "a", [0, 0, 1]) == 3
    cache.add("a", [2], columns_of([2]))
    assert [num_found(cache, "a", ids) for ids in ([0, 0, 2], [1, 1], [0, 0, 1], [2])] == [2, 2, 3, 1]


def test_nothing_is_kept_of_what_alone_is_too_much() -> None:
    cache = PrefixCache(3 * TOKEN_BYTES)
    cache.add("a", [0, 1], columns_of([0, 1]))
    cache.add("a", [2, 0, 0, 1], columns_of([2, 0, 0, 1]))
    assert num_found(cache, "a", [2, 0, 0, 1]) == 0
    assert num_found(cache, "a", [0, 1]) == 2
