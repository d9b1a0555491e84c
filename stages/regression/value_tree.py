"""Every number that a task can write, as a tree of tokens behind a prompt.

    prompt ─ {"correlation": ┬─ -0. ┬─ 0 ┬─ 1          the distribution over whole values is the product of the
                             │      │    └─ ...        choices at the branchings; where only one token can follow
                             │      └─ ...             there is no choice and no cost
                             └─ 0. ─ ...

One forward pass over the prompt and the tree (each node sees the prompt and its own ancestors only) gives the
constrained distribution over all values: what constrained decoding draws from, greedy and expected value included,
without a loop over tokens. The idea of whole trees in one pass is that of SpecInfer (Miao et al., 2024).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from stages.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

ROOT = -1  # the parent of what directly follows the prompt


@dataclass(frozen=True)
class Branching:
    """A choice: the token after `node` is one of `tokens`."""

    node: int  # ROOT: right after the prompt
    tokens: list[int]
    means: list[float]  # of the values behind each token


@dataclass(frozen=True)
class ValueTree:
    """Nodes (M), branchings (N) and leaves (L). A leaf is a value, or a group of neighbouring ones where cut.

    tokens, parents, depths: [M], parents before children. leaves: [L] means of their values, ascending.
    paths: [L] lists of (branching, choice), from the prompt on. members: [L] numbers of the task's values.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    branchings: list[Branching]
    leaves: list[float]
    paths: list[list[tuple[int, int]]]
    members: list[list[int]] = field(repr=False)

    @property
    def num_nodes(self) -> int:
        return len(self.tokens)

    @cached_property
    def leaf_of(self) -> dict[int, int]:
        """Number of a value -> its leaf."""
        return {value: leaf for leaf, values in enumerate(self.members) for value in values}

    @cached_property
    def sees(self) -> np.ndarray:
        """bool [M, M]: whether node i sees node j: itself and its ancestors."""
        import numpy as np

        sees = np.eye(self.num_nodes, dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                sees[node] |= sees[parent]
        return sees

    @cached_property
    def _number_of(self) -> dict[tuple[int, int], int]:
        return {edge: node for node, edge in enumerate(zip(self.parents, self.tokens, strict=True))}

    def follow(self, ids: Sequence[int]) -> list[int]:
        """The nodes that an answer's tokens pass, as far as the tree goes."""
        path: list[int] = []
        for token in ids:
            node = self._number_of.get((path[-1] if path else ROOT, token))
            if node is None:
                break
            path.append(node)
        return path


@dataclass(order=True)
class _Group:
    """Values that share their first tokens; the widest group is opened first."""

    negative_width: float
    order: int
    node: int = field(compare=False)  # the last node that exists
    token: int | None = field(compare=False)  # the choice after it; None: nothing was chosen yet
    depth: int = field(compare=False)  # tokens that the members share so far
    members: list[int] = field(compare=False)
    path: list[tuple[int, int]] = field(compare=False)


def build_tree(values: Sequence[float], answers: Sequence[Sequence[int]], max_nodes: int) -> ValueTree:
    """The tree of `answers` (token ids of each value's whole answer), opened until it has about `max_nodes` nodes.

    What is left unopened are groups of values with the same first digits: a leaf stands for their mean.
    Raises DataError where two values are written with the same tokens.
    """
    return _Growth(list(values), answers).grow(max_nodes)


class _Growth:
    """A tree while it is built."""

    def __init__(self, values: list[float], answers: Sequence[Sequence[int]]) -> None:
        self.values, self.answers = values, answers
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.branchings: list[Branching] = []
        self.groups: list[_Group] = []
        self.num_groups = 0

    def grow(self, max_nodes: int) -> ValueTree:
        closed: list[_Group] = []
        self._add_group(ROOT, None, 0, list(range(len(self.values))), [])
        while self.groups:
            group = heapq.heappop(self.groups)
            if len(group.members) == 1 or len(self.tokens) >= max_nodes:
                closed.append(group)
            else:
                self._open(group)
        closed.sort(key=lambda group: self._mean(group.members))
        return ValueTree(
            tokens=self.tokens,
            parents=self.parents,
            depths=self.depths,
            branchings=self.branchings,
            leaves=[self._mean(group.members) for group in closed],
            paths=[group.path for group in closed],
            members=[group.members for group in closed],
        )

    def _mean(self, members: list[int]) -> float:
        return sum(self.values[member] for member in members) / len(members)

    def _add_group(
        self, node: int, token: int | None, depth: int, members: list[int], path: list[tuple[int, int]]
    ) -> None:
        width = max(self.values[m] for m in members) - min(self.values[m] for m in members)
        heapq.heappush(self.groups, _Group(-width, self.num_groups, node, token, depth, members, path))
        self.num_groups += 1

    def _open(self, group: _Group) -> None:
        """Adds the nodes that all members share, and a choice where they part."""
        node = group.node if group.token is None else self._add_node(group.node, group.token, group.depth)
        depth = group.depth
        while len(parts := self._next_tokens(group.members, depth)) == 1:
            depth += 1
            node = self._add_node(node, next(iter(parts)), depth)
        means = [self._mean(members) for members in parts.values()]
        self.branchings.append(Branching(node, list(parts), means))
        for choice, (token, members) in enumerate(parts.items()):
            step = (len(self.branchings) - 1, choice)
            self._add_group(node, token, depth + 1, members, [*group.path, step])

    def _next_tokens(self, members: list[int], depth: int) -> dict[int, list[int]]:
        parts: dict[int, list[int]] = {}
        for member in members:
            if depth >= len(self.answers[member]):
                raise DataError(f"{self.values[member]} and another value are written with the same tokens")
            parts.setdefault(self.answers[member][depth], []).append(member)
        return parts

    def _add_node(self, parent: int, token: int, depth: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(depth)
        return len(self.tokens) - 1
