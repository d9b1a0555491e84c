"""Pairs in hash order: each once, the same from any order of the keys, unmoved by new keys."""

from __future__ import annotations

import pytest

from stages.regression import pair_sampling
from stages.regression.pair_sampling import pairs_by_hash


def named(keys: list[str], seed: int = 1) -> list[tuple[str, str]]:
    return [(keys[i], keys[j]) for i, j in pairs_by_hash(keys, seed)]


def test_every_pair_once() -> None:
    pairs = named([f"c{n}" for n in range(40)])
    assert len(pairs) == 780
    assert len({frozenset(pair) for pair in pairs}) == 780


@pytest.mark.parametrize("keys", [[], ["a"]])
def test_no_pairs(keys: list[str]) -> None:
    assert named(keys) == []


def test_the_order_of_the_keys_does_not_matter_but_the_seed_does() -> None:
    keys = [f"c{n}" for n in range(30)]
    assert named(keys) == named(keys[::-1])
    assert named(keys) != named(keys, seed=2)


def test_new_keys_reorder_nothing() -> None:
    old = [f"c{n}" for n in range(30)]
    among_old = [pair for pair in named([*old, "x", "y"]) if not set(pair) & {"x", "y"}]
    assert among_old == named(old)


def test_either_key_comes_first_about_as_often() -> None:
    share = sum(a < b for a, b in named([f"c{n:03d}" for n in range(80)])) / 3160
    assert 0.45 < share < 0.55


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"c{n}" for n in range(50)]
    whole = named(keys)
    monkeypatch.setattr(pair_sampling, "PAIRS_AT_ONCE", 100)
    assert named(keys) == whole
