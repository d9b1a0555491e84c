"""Keys and values of rows that come and go, in memory that has room for more of both.

transformers' DynamicCache copies everything for each new token. Here a token is written into its place, a row that
joins into the next free line, and the last row into the line of one that leaves:

    [ .  .  a1 a2 a3 |  .  .  .  . ]      a row of 3 tokens: padding on its left, room on its right
    [ b1 b2 b3 b4 b5 |  .  .  .  . ]      the width is 5
    [ .  .  .  .  .  |  .  .  .  . ]      room for a row

Shapes: B rows, H heads, T columns, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.cache_utils import Cache, DynamicLayer

NUM_SPARE = 64  # columns of room: one copy of everything in 64 tokens


class RowLayer(DynamicLayer):  # type: ignore[misc]  # transformers' classes are Any here
    """keys, values: [B, H, T, D], views of two larger tensors."""

    keys: Any
    values: Any
    is_initialized: bool

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        new = (key_states, value_states)
        num_rows, _, num_new, _ = key_states.shape
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._rooms = [states[:, :, :0] for states in new]
            self._first, self._end = 0, 0
        if self._end + num_new > self._rooms[0].shape[-2]:
            self._move(len(self._rooms[0]), self._end - self._first, num_new + NUM_SPARE)
        for room, states in zip(self._rooms, new, strict=True):
            room[:num_rows, :, self._end : self._end + num_new] = states
        self._end += num_new
        self._show(num_rows)
        return self.keys, self.values

    def keep(self, rows: Sequence[int], width: int) -> None:
        """Line n is to hold what line rows[n] holds; of the columns, the last `width` stay."""
        self._first = self._end - width
        for place, row in enumerate(rows):
            if place != row:
                for room in self._rooms:
                    room[place, :, self._first : self._end] = room[row, :, self._first : self._end]
        self._show(len(rows))

    def join(self, keys: Any, values: Any) -> None:
        """Rows [B', H, T', D] below these; the narrower ones get zeros on their left, which nothing attends to."""
        num_old, num_rows, width = len(self.keys), len(self.keys) + len(keys), keys.shape[-2]
        if num_rows > len(self._rooms[0]) or width > self._end:
            lines = max(len(self._rooms[0]), 1 << (num_rows - 1).bit_length())
            self._move(lines, max(width, self._end - self._first), NUM_SPARE)
        self._first = min(self._first, self._end - width)
        for room, states in zip(self._rooms, (keys, values), strict=True):
            room[:num_old, :, self._first : self._end - self.keys.shape[-2]] = 0
            room[num_old:num_rows, :, self._first : self._end - width] = 0
            room[num_old:num_rows, :, self._end - width : self._end] = states
        self._show(num_rows)

    def _move(self, num_rows: int, end: int, num_spare: int) -> None:
        """To memory for `num_rows` rows that end in column `end`, with columns to spare behind it."""
        width = self._end - self._first
        for n, room in enumerate(self._rooms):
            _, num_heads, _, dimension = room.shape
            self._rooms[n] = room.new_zeros(num_rows, num_heads, end + num_spare, dimension)
            self._rooms[n][: len(room), :, end - width : end] = room[:, :, self._first : self._end]
        self._first, self._end = end - width, end

    def _show(self, num_rows: int) -> None:
        self.keys, self.values = (room[:num_rows, :, self._first : self._end] for room in self._rooms)


class RowCache(Cache):  # type: ignore[misc]
    """The cache of a model that has attention in every layer. Windows of attention are left to the mask."""

    def __init__(self, rows: Sequence[Sequence[Any]] = ()) -> None:
        """rows: each as `columns` gives it, of as many layers; the narrower ones are padded on their left."""
        super().__init__(layer_class_to_replicate=RowLayer)
        parts = [_stacked(part) for part in zip(*rows, strict=True)]
        for n in range(0, len(parts), 2):
            self.update(parts[n], parts[n + 1], n // 2)

    def columns(self, row: int, num: int) -> list[Any]:
        """The last `num` columns of a row: views [H, num, D] of the keys and values of each layer."""
        both = (part for layer in self.layers for part in (layer.keys, layer.values))
        return [part[row, :, part.shape[-2] - num :] for part in both]

    def keep(self, rows: Sequence[int], width: int) -> None:
        """See RowLayer."""
        for layer in self.layers:
            layer.keep(rows, width)

    def join(self, other: RowCache) -> None:
        """Puts the rows of `other` below these."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs.keys, theirs.values)


def _stacked(parts: Sequence[Any]) -> Any:
    """[B, H, T, D] of B parts [H, <= T, D]."""
    import torch

    width = max(part.shape[1] for part in parts)
    return torch.stack([torch.nn.functional.pad(part, (0, 0, width - part.shape[1], 0)) for part in parts])
