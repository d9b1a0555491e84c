"""Whole pieces of text in rows of a fixed length, placed first-fit: nothing is cut but what is longer than a row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

OPEN_ROWS = 24

Rows = tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]  # ids and loss weights, both [rows, length]


def pack_rows(pieces: Iterable[tuple[list[int], list[float]]], num_rows: int, length: int, pad_id: int) -> Rows:
    """(ids, loss weights) of pieces -> ids [num_rows, length] and loss weights of the same shape, 0 on padding.

    A row is closed, fullest first, when a piece fits into none of the open ones. A piece's first token weighs
    nothing: what stands before it in the row says nothing about it. Pieces may be endless.
    """
    ids = np.full((num_rows, length), pad_id, dtype=np.int16)
    weights = np.zeros((num_rows, length), dtype=np.float32)
    used = [0] * num_rows
    open_rows = list(range(min(OPEN_ROWS, num_rows)))
    next_row = len(open_rows)
    for piece_ids, piece_weights in pieces:
        size = min(len(piece_ids), length)
        row = next((row for row in open_rows if used[row] + size <= length), None)
        if row is None:
            open_rows.remove(max(open_rows, key=lambda row: used[row]))
            if next_row < num_rows:
                row, next_row = next_row, next_row + 1
                open_rows.append(row)
            elif not open_rows:
                break
            else:
                continue
        start, used[row] = used[row], used[row] + size
        ids[row, start : start + size] = piece_ids[:size]
        weights[row, start + 1 : start + size] = piece_weights[1:size]
    return ids, weights
