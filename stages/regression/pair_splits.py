"""Splits of pairs into train, validation and test, frozen: a place in them is a hash of the seed and a key.

by_pair      each pair falls by itself, so a test pair's contracts are known from other pairs (or: the official split)
by_contract  each contract falls by itself, and pairs whose contracts fall apart are dropped: nothing that is asked in
             the test was ever seen. Where few contracts meet (`component`), all that hang together fall together
             instead, and no pair is lost.

A contract is what has the same id or the same text. New data never moves an old contract, unless it is another listing
of it; `component` holds less firmly: new pairs may tie components together, and change what a large one is.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stages.core.errors import DataError
from stages.regression.pairs import Pair, text_key
from stages.regression.task import PARTS

MAX_COMPONENT_SHARE = 0.5  # of the smallest part: a component with more of the pairs trains
NAMED_IN_MESSAGE = 5


@dataclass(frozen=True)
class Split:
    """parts: part -> its pairs, sorted by id. num_mixed: pairs dropped as their contracts fell into different parts."""

    parts: Mapping[str, list[Pair]]
    num_mixed: int = 0
    num_left_out: int = 0  # by the caps


def hash_position(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_pair(pairs: Iterable[Pair], shares: Mapping[str, float], seed: int, official: bool) -> Split:
    """Each pair by the hash of its two texts, in either order; `official` takes the part that the source gives it."""
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    for pair in pairs:
        position = hash_position(seed, "by_pair", "/".join(pair.key))
        parts[pair.part if official else _part_at(position, shares)].append(pair)
    return Split(parts)


def split_by_contract(pairs: list[Pair], shares: Mapping[str, float], seed: int, whole_components: bool) -> Split:
    """No contract in two parts. shares: of the pairs that are kept; contracts are shared out so that they come near."""
    contracts = _Groups(pairs, join_pairs=False)
    groups = _Groups(pairs, join_pairs=True) if whole_components else contracts
    if whole_components:
        fixed, contract_shares = _large_components(pairs, groups, shares)
    else:
        # Both contracts of a pair must fall into a part: its pairs go with the square of its share of contracts.
        fixed, contract_shares = set(), {part: math.sqrt(share) for part, share in shares.items()}
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    num_mixed = 0
    for pair in pairs:
        roots = {groups.root(node) for node in _sides(pair)}
        fell = {"train" if r in fixed else _part_at(hash_position(seed, "contract", r), contract_shares) for r in roots}
        if len(fell) == 1:
            parts[fell.pop()].append(pair)
        else:
            num_mixed += 1
    return Split(parts, num_mixed)


def _part_at(position: float, shares: Mapping[str, float]) -> str:
    """The part at a position in [0, 1), for shares that need not add up to 1. Training comes last, so that a change
    of the test's share alone moves pairs between test and training only."""
    bound = 0.0
    for part in ("test", "validation"):
        bound += shares[part] / sum(shares.values())
        if position < bound:
            return part
    return "train"


def _sides(pair: Pair) -> tuple[str, str]:
    return f"id/{pair.a_id}", f"id/{pair.b_id}"


class _Groups:
    """Union-find over contract ids and texts; the root of a group is its smallest name."""

    def __init__(self, pairs: Iterable[Pair], join_pairs: bool) -> None:
        self._parent: dict[str, str] = {}
        for pair in pairs:
            a, b = _sides(pair)
            self._join(a, f"text/{text_key(pair.a)}")
            self._join(b, f"text/{text_key(pair.b)}")
            if join_pairs:
                self._join(a, b)

    def root(self, node: str) -> str:
        """The name of the group that holds `node`."""
        self._parent.setdefault(node, node)
        while (parent := self._parent[node]) != node:
            self._parent[node] = self._parent[parent]
            node = parent
        return node

    def _join(self, one: str, other: str) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low


def _large_components(
    pairs: list[Pair], groups: _Groups, shares: Mapping[str, float]
) -> tuple[set[str], dict[str, float]]:
    """Components too large to fall by hash, which train; and the shares of the rest that make up for them."""
    sizes = Counter(groups.root(_sides(pair)[0]) for pair in pairs)
    limit = MAX_COMPONENT_SHARE * min(shares.values()) * len(pairs)
    large = {root for root, size in sizes.items() if size > limit}
    share = sum(sizes[root] for root in large) / max(len(pairs), 1)
    return large, {**shares, "train": max(shares["train"] - share, 0.0)}


def cap(split: Split, max_pairs: Mapping[str, int], seed: int) -> Split:
    """At most so many pairs a part (0: all), the first by hash."""
    parts = {}
    for part, pairs in split.parts.items():
        if 0 < max_pairs[part] < len(pairs):
            pairs = sorted(pairs, key=lambda pair: hash_position(seed, "cap", "/".join(pair.key)))[: max_pairs[part]]
        parts[part] = sorted(pairs, key=lambda pair: pair.id)
    num_left_out = sum(len(split.parts[part]) - len(parts[part]) for part in parts)
    return Split(parts, split.num_mixed, num_left_out)


def contracts_of(pairs: Iterable[Pair]) -> dict[str, str]:
    """Every id and every text's hash among the pairs -> the id to name in a message."""
    found: dict[str, str] = {}
    for pair in pairs:
        for identifier, text in ((pair.a_id, pair.a), (pair.b_id, pair.b)):
            found[f"id/{identifier}"] = found[f"text/{text_key(text)}"] = identifier
    return found


def prove_disjoint(name: str, split: Split, by_contract: bool) -> None:
    """Raises DataError, with names, where two parts share a pair (in either order) or, `by_contract`, a contract; or
    where a part is empty."""
    seen: dict[str, tuple[str, str]] = {}  # what must not be shared -> (part, id to name)
    for part, pairs in split.parts.items():
        if not pairs:
            raise DataError(f"{name}: no pair fell into {part}: too few pairs or contracts for this split")
        found = contracts_of(pairs) if by_contract else {}
        found |= {"pair/" + "/".join(pair.key): pair.id for pair in pairs}
        shared = sorted({f"{found[key]} (also {seen[key][0]}: {seen[key][1]})" for key in set(found) & set(seen)})
        if shared:
            more = f" and {len(shared) - NAMED_IN_MESSAGE} more" if len(shared) > NAMED_IN_MESSAGE else ""
            raise DataError(f"{name}: {part} leaks: {', '.join(shared[:NAMED_IN_MESSAGE])}{more}")
        seen |= {key: (part, identifier) for key, identifier in found.items()}
