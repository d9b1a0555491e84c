"""Keys and values of what was read before, for prompts that begin alike: a system prompt, documents, earlier turns.

    cache = PrefixCache(max_bytes=2**29)
    columns = cache.find("tuned", prompt_ids)          # of the longest beginning that is known
    cache.add("tuned", prompt_ids, columns_of_prompt)

A tree of tokens for each model, split where prompts part (RadixAttention: Zheng et al., 2024):

    [system, document 1] -+- [question 1, answer 1] --- [question 2]
                          +- [question 3]

What was not asked for the longest goes first, leaves before what they stand on. `columns` are a model's keys and
values in the order of its layers, each [H, T, D]: heads, tokens, dimensions. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

Columns = list[Any]


class _Node:
    """Tokens that follow those of `parent`, and their columns; of a root neither."""

    def __init__(self, parent: _Node | None, ids: tuple[int, ...], columns: Columns) -> None:
        self.parent, self.ids, self.columns = parent, ids, columns
        self.children: dict[int, _Node] = {}  # by their first token

    @property
    def num_bytes(self) -> int:
        return sum(part.nbytes for part in self.columns)


class PrefixCache:
    """At most `max_bytes` for all models together; 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._roots: dict[Hashable, _Node] = {}
        self._nodes: dict[_Node, None] = {}  # without roots, the one to go next first; nothing stands on that one

    def find(self, model: Hashable, ids: Sequence[int]) -> Columns:
        """Of the longest known beginning of `ids`; [] where nothing of it is known."""
        import torch

        path = self._path(model, tuple(ids))
        return [torch.cat(parts, -2) for parts in zip(*(node.columns for node in path), strict=True)]

    def add(self, model: Hashable, ids: Sequence[int], columns: Columns) -> None:
        """Copies what is not known yet. columns: of all `ids`."""
        path = self._path(model, tuple(ids))
        num_known = sum(len(node.ids) for node in path)
        if num_known == len(ids) or sum(part[:, num_known:].nbytes for part in columns) > self.max_bytes:
            return
        parent = path[-1] if path else self._roots.setdefault(model, _Node(None, (), []))
        node = _Node(parent, tuple(ids[num_known:]), [part[:, num_known:].clone() for part in columns])
        parent.children[node.ids[0]] = node
        self.num_bytes += node.num_bytes
        self._touch([*path, node])
        while self.num_bytes > self.max_bytes:
            self._drop(next(iter(self._nodes)))

    def forget(self, model: Hashable) -> None:
        """Everything of a model."""
        root = self._roots.pop(model, None)
        waiting = [root] if root else []
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            if node is not root:
                del self._nodes[node]
                self.num_bytes -= node.num_bytes

    def _path(self, model: Hashable, ids: tuple[int, ...]) -> list[_Node]:
        """Nodes that make up the longest known beginning of `ids`; a node that is left half way is split there."""
        node, path, start = self._roots.get(model), [], 0
        while node and start < len(ids) and (node := node.children.get(ids[start])):
            num = _num_equal(node.ids, ids[start : start + len(node.ids)])
            if num < len(node.ids):
                node = self._split(node, num)
            path.append(node)
            start += num
        self._touch(path)
        return path

    def _split(self, node: _Node, num: int) -> _Node:
        """A new node with the first `num` tokens of `node`, which keeps the others and stands on it."""
        assert node.parent is not None  # a root has no tokens
        head = _Node(node.parent, node.ids[:num], [part[:, :num].clone() for part in node.columns])
        node.parent.children[head.ids[0]] = head
        node.parent, node.ids = head, node.ids[num:]
        node.columns = [part[:, num:].clone() for part in node.columns]  # of a view nothing could be given back
        head.children[node.ids[0]] = node
        return head

    def _touch(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):  # what others stand on is newer than they are
            self._nodes.pop(node, None)
            self._nodes[node] = None

    def _drop(self, node: _Node) -> None:
        assert node.parent is not None
        node.parent.children.pop(node.ids[0], None)
        del self._nodes[node]
        self.num_bytes -= node.num_bytes


def _num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that are the same from the beginning on."""
    if one == other:
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
