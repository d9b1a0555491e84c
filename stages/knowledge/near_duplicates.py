"""Clusters of texts that say nearly the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from stages.knowledge.shingles import Shingler, similar_pairs

Member = TypeVar("Member", bound=Hashable)


class Groups(Generic[Member]):
    """Disjoint sets (union-find); a group is named after its member that was added first."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._order = {member: number for number, member in enumerate(members)}
        self._parent = {member: member for member in self._order}

    def first(self, member: Member) -> Member:
        """The first member of the group that `member` is in."""
        while (parent := self._parent[member]) != member:
            self._parent[member] = self._parent[parent]
            member = parent
        return member

    def join(self, one: Member, other: Member) -> None:
        low, high = sorted((self.first(one), self.first(other)), key=self._order.__getitem__)
        self._parent[high] = low

    def members(self) -> dict[Member, list[Member]]:
        """First member -> all members, in the order they were added."""
        groups: dict[Member, list[Member]] = {}
        for member in self._order:
            groups.setdefault(self.first(member), []).append(member)
        return groups


def near_duplicates(texts: Sequence[tuple[str, ...]], threshold: float) -> list[tuple[int, int]]:
    """Pairs of texts whose word trigrams have a Jaccard similarity >= threshold; of equal ones, each with the first.

    A text is given in its parts, such as (question, answer).
    """
    shingler = Shingler()
    return list(similar_pairs([shingler(*parts) for parts in texts], threshold))
