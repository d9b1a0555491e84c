"""First weights in which copying is laid out: an induction circuit in an otherwise random model.

"... Bako Lonten ... Bako" -> "Lonten": a first layer tells each token which token stood before it, a second one
looks for places where that was the present token, and says what stands there (Olsson et al., 2022,
arXiv:2209.11895). A small model finds this circuit by itself only after millions of tokens on which nothing else
seems to be learned; beginning from it, it grounds its answers after a tenth of them. All weights are trained
further. After "mimetic initialization" (Trockman & Kolter, 2023, arXiv:2305.09828).

The hidden dimensions fall into four blocks of D, the size of a head:
    0      matched: what the circuit compares      1      copied: what it says
    2      free                                    3      no token's own: the token before is noted here
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.training.recipe import Shape
from stages.training.tiny_llama import ROPE_THETA, Weights

EMBEDDING_DEVIATION = 0.023
EMBEDDING_MEAN = 0.02  # a part that all tokens share, so that a head can look at a place whatever stands there
PREVIOUS_SHARPNESS = 0.8
PREVIOUS_FREQUENCIES = 4  # of the fastest rotary pairs, which tell neighbours apart
MATCH_SHARPNESS = 1.5
NOTE_SCALE = 0.1


@torch.no_grad()
def lay_induction_circuit(weights: Weights, shape: Shape, generator: torch.Generator) -> None:
    """Changes embeddings, and heads 0 and 1 of the first two layers, in place. Needs 2 layers and 4 heads."""
    size = shape.hidden // shape.heads
    weights.embedding.normal_(0.0, EMBEDDING_DEVIATION, generator=generator)
    weights.embedding[:, 3 * size : 4 * size] = 0
    weights.embedding += EMBEDDING_MEAN
    for layer in (0, 1):
        _look_at_previous(weights.attention[layer], size)
    _move(weights.attention[0], head=0, size=size, source=0, target=3)
    _look_for_match(weights.attention[1], size)
    _move(weights.attention[1], head=1, size=size, source=1, target=1)


def _frequencies(size: int) -> Tensor:
    return ROPE_THETA ** (-torch.arange(0, size, 2) / size)


def _look_at_previous(attention: Tensor, size: int) -> None:
    """Head 0 attends to the token before: query and key come from the shared mean and differ by one turn."""
    angles = _frequencies(size)[:PREVIOUS_FREQUENCIES]
    query, key = torch.zeros(size), torch.zeros(size)
    query[:PREVIOUS_FREQUENCIES] = 1
    key[:PREVIOUS_FREQUENCIES] = angles.cos()
    key[size // 2 : size // 2 + PREVIOUS_FREQUENCIES] = angles.sin()
    hidden = attention.shape[-1]
    mean = torch.full((hidden,), 1 / math.sqrt(hidden))
    attention[0, :size] = PREVIOUS_SHARPNESS * torch.outer(query, mean)
    attention[1, :size] = PREVIOUS_SHARPNESS * torch.outer(key, mean)


def _look_for_match(attention: Tensor, size: int) -> None:
    """Head 1 compares block 0 of a token with block 3 of earlier ones, on the slow rotary pairs only.

    The fast ones would turn a match into its opposite a few tokens further.
    """
    slow = torch.cat([torch.arange(size // 4, size // 2), torch.arange(3 * size // 4, size)])
    rows, columns = size + slow, torch.arange(len(slow))
    attention[:2, size : 2 * size] = 0
    attention[0, rows, columns] = MATCH_SHARPNESS
    attention[1, rows, 3 * size + columns] = MATCH_SHARPNESS


def _move(attention: Tensor, head: int, size: int, source: int, target: int) -> None:
    """A head adds block `source` of what it attends to to block `target` of where it stands."""
    own, read, written = (slice(block * size, (block + 1) * size) for block in (head, source, target))
    attention[2, own] = 0
    attention[2, own, read] = torch.eye(size)
    attention[3, :, own] = 0
    attention[3, written, own] = NOTE_SCALE * torch.eye(size)
