"""Keys and values of rows that come and go, in memory with room for the next tokens.

transformers' DynamicCache copies all of it for every token; here a token is written into its place:

    [ .  .  a1 a2 a3 |  .  .  .  . ]      a row of 3 tokens, padding on its left, room on its right
    [ b1 b2 b3 b4 b5 |  .  .  .  . ]

Shapes: B rows, H heads, T columns, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

NUM_SPARE = 64  # columns: of what is copied, at most one 64th a token


class GrowingLayer(DynamicLayer):
    """keys, values: [B, H, T, D], views into memory that is a little wider."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.hold(key_states, value_states)
            return self.keys, self.values
        width, num_new = self.keys.shape[-2], key_states.shape[-2]
        if self._first + width + num_new > self._rooms[0].shape[-2]:
            self.hold(self.keys, self.values, num_new + NUM_SPARE)
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, self._first + width : self._first + width + num_new] = states
        self._show(width + num_new)
        return self.keys, self.values

    def hold(self, keys: Any, values: Any, num_spare: int = NUM_SPARE) -> None:
        """Copies these into memory with room for `num_spare` columns."""
        *rows, width, _ = keys.shape
        self._first = 0
        self._rooms = [states.new_empty(*rows, width + num_spare, states.shape[-1]) for states in (keys, values)]
        for room, states in zip(self._rooms, (keys, values), strict=True):
            room[:, :, :width] = states
        self._show(width)

    def narrow(self, width: int) -> None:
        """Forgets all but the last `width` columns."""
        self._first += self.keys.shape[-2] - width
        self._show(width)

    def _show(self, width: int) -> None:
        self.keys, self.values = (room[:, :, self._first : self._first + width] for room in self._rooms)


class GrowingCache(Cache):
    """The cache of models with attention in every layer. Windows of attention are left to the mask."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def keep(self, rows: Any, width: int) -> None:
        """These rows (their numbers [B]), and the last `width` columns."""
        for layer in self.layers:
            layer.narrow(width)
            layer.hold(layer.keys[rows], layer.values[rows])

    def join(self, other: GrowingCache) -> None:
        """Puts the rows of `other` below these, the narrower ones padded on the left."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            width = max(mine.keys.shape[-2], theirs.keys.shape[-2])
            keys = torch.cat([_padded(mine.keys, width), _padded(theirs.keys, width)])
            mine.hold(keys, torch.cat([_padded(mine.values, width), _padded(theirs.values, width)]))


def _padded(states: Any, width: int) -> Any:
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))
