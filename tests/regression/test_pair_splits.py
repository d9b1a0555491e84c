"""Splits: near their shares, frozen, proven free of leaks, and the proof can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.regression.pair_splits import Split, cap, hash_position, prove_disjoint, split_by_contract, split_by_pair
from stages.regression.pairs import Pair
from stages.regression.task import PARTS

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def pair(a: str, b: str, part: str = "") -> Pair:
    return Pair(f"{a}--{b}", a, b, f"text {a}", f"text {b}", 0.5, part=part)


def dense(num_contracts: int, prefix: str = "c") -> list[Pair]:
    return [pair(a, b) for a, b in combinations([f"{prefix}{n}" for n in range(num_contracts)], 2)]


def sparse(num_components: int) -> list[Pair]:
    return [pair(f"{n}a", f"{n}b") for n in range(num_components)] + [
        pair(f"{n}b", f"{n}c") for n in range(num_components)
    ]


def part_of(split: Split) -> dict[str, str]:
    return {pair.id: part for part, pairs in split.parts.items() for pair in pairs}


def shares(split: Split) -> dict[str, float]:
    total = sum(map(len, split.parts.values()))
    return {part: len(pairs) / total for part, pairs in split.parts.items()}


def contracts(split: Split, part: str) -> set[str]:
    return {identifier for pair in split.parts[part] for identifier in (pair.a_id, pair.b_id)}


@pytest.mark.parametrize("seed", range(4))
def test_by_contract_no_contract_is_in_two_parts(seed: int) -> None:
    pairs = dense(120)
    split = split_by_contract(pairs, SHARES, seed, whole_components=False)
    prove_disjoint("by_contract", split, by_contract=True)
    for one, other in combinations(PARTS, 2):
        assert not contracts(split, one) & contracts(split, other)
    assert sum(map(len, split.parts.values())) + split.num_mixed == len(pairs)
    assert split.num_mixed > 0


def test_by_contract_the_pairs_come_near_their_shares() -> None:
    found = shares(split_by_contract(dense(600), SHARES, 13, whole_components=False))
    assert found == pytest.approx(SHARES, abs=0.05)


def test_by_component_nothing_is_dropped() -> None:
    pairs = sparse(2000)
    split = split_by_contract(pairs, SHARES, 13, whole_components=True)
    prove_disjoint("by_contract", split, by_contract=True)
    assert split.num_mixed == 0
    assert shares(split) == pytest.approx(SHARES, abs=0.03)


def test_a_large_component_trains_and_the_rest_makes_up_for_it() -> None:
    large = [pair("hub", f"spoke{n}") for n in range(1000)]
    split = split_by_contract([*sparse(1500), *large], SHARES, 13, whole_components=True)
    assert {part for identifier, part in part_of(split).items() if identifier.startswith("hub")} == {"train"}
    assert shares(split) == pytest.approx(SHARES, abs=0.03)


def test_by_pair_comes_near_its_shares_and_keeps_all() -> None:
    pairs = dense(100)
    split = split_by_pair(pairs, SHARES, 13, official=False)
    prove_disjoint("by_pair", split, by_contract=False)
    assert sum(map(len, split.parts.values())) == len(pairs)
    assert shares(split) == pytest.approx(SHARES, abs=0.03)


def test_the_official_split_is_kept() -> None:
    pairs = [pair("a", "b", "test"), pair("a", "c", "train"), pair("b", "c", "validation")]
    split = split_by_pair(pairs, SHARES, 13, official=True)
    assert part_of(split) == {"a--b": "test", "a--c": "train", "b--c": "validation"}


@pytest.mark.parametrize("whole_components", [False, True])
def test_new_contracts_move_no_old_pair(whole_components: bool) -> None:
    old = sparse(300) if whole_components else dense(60)
    before = part_of(split_by_contract(old, SHARES, 13, whole_components))
    after = part_of(split_by_contract([*old, *dense(5, "new")], SHARES, 13, whole_components))
    assert {key: after[key] for key in before} == before
    assert (
        part_of(split_by_pair(old, SHARES, 1, False)).items()
        <= part_of(split_by_pair([*old, *dense(5, "new")], SHARES, 1, False)).items()
    )


def test_the_seed_decides() -> None:
    pairs = dense(60)
    one, same, other = (part_of(split_by_pair(pairs, SHARES, seed, official=False)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_mirrored_pair_falls_where_the_pair_falls() -> None:
    pairs = dense(40)
    mirrored = [replace(p, id=p.id, a=p.b, b=p.a, a_id=p.b_id, b_id=p.a_id) for p in pairs]
    assert part_of(split_by_pair(pairs, SHARES, 1, False)) == part_of(split_by_pair(mirrored, SHARES, 1, False))


def test_contracts_with_the_same_text_fall_together() -> None:
    pairs = [*dense(60), *[replace(pair("twin", f"c{n}"), a="TEXT  c0") for n in range(1, 60)]]
    split = split_by_contract(pairs, SHARES, 13, whole_components=False)
    prove_disjoint("by_contract", split, by_contract=True)
    fell = {part for part in PARTS if contracts(split, part) & {"c0", "twin"}}
    assert len(fell) == 1


@given(st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda t: t[0] < t[1])), st.integers(0, 99))
def test_by_contract_is_always_disjoint(edges: set[tuple[int, int]], seed: int) -> None:
    pairs = [pair(str(a), str(b)) for a, b in sorted(edges)]
    for whole in (False, True):
        split = split_by_contract(pairs, SHARES, seed, whole)
        seen = Counter(identifier for part in PARTS for identifier in contracts(split, part))
        assert not seen or max(seen.values()) == 1
        assert sum(map(len, split.parts.values())) + split.num_mixed == len(pairs)


def test_a_cap_takes_the_first_by_hash_and_counts_the_rest() -> None:
    split = split_by_pair(dense(60), SHARES, 13, official=False)
    small, larger = (cap(split, {"train": n, "validation": 0, "test": 5}, 13) for n in (20, 40))
    assert [len(small.parts[part]) for part in PARTS] == [20, len(split.parts["validation"]), 5]
    assert {p.id for p in small.parts["train"]} < {p.id for p in larger.parts["train"]}
    assert small.num_left_out == len(split.parts["train"]) + len(split.parts["test"]) - 25
    assert small.parts["train"] == sorted(small.parts["train"], key=lambda p: p.id)


def leak(test_pair: Pair) -> Split:
    return Split({"train": [pair("a", "b")], "validation": [pair("c", "d")], "test": [test_pair]})


def test_the_proof_fails_on_a_shared_contract() -> None:
    with pytest.raises(DataError, match=r"by_contract: test leaks: a \(also train: a\)"):
        prove_disjoint("by_contract", leak(pair("a", "x")), by_contract=True)
    prove_disjoint("by_pair", leak(pair("a", "x")), by_contract=False)


def test_the_proof_fails_on_a_shared_text() -> None:
    with pytest.raises(DataError, match=r"test leaks: z \(also train: a\)"):
        prove_disjoint("by_contract", leak(replace(pair("z", "x"), a="Text A")), by_contract=True)


def test_the_proof_fails_on_a_mirrored_pair() -> None:
    with pytest.raises(DataError, match=r"test leaks: b--a \(also train: a--b\)"):
        prove_disjoint("by_pair", leak(pair("b", "a")), by_contract=False)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match="no pair fell into test"):
        prove_disjoint("by_pair", Split({"train": [pair("a", "b")], "validation": [pair("c", "d")], "test": []}), False)


def test_positions_are_frozen() -> None:
    assert hash_position(13, "contract", "id/c-0001") == 0.48293083995865466
    assert hash_position(13, "by_pair", "x") == hash_position(13, "by_pair", "x")
    assert hash_position(13, "by_pair", "x") != hash_position(13, "contract", "x")
