"""How far a prediction is from the right value: the regression part of the hybrid loss.

No kind reads a number off an argmax. Values are on the scale where the task's range is [-1, 1], so that a weight
means the same for every task. With p the distribution over values z, and y the right value, of one row:

| kind        | loss                                                                                             |
|-------------|--------------------------------------------------------------------------------------------------|
| crps        | E |z - y| - E |z - z'| / 2, a proper scoring rule (Gneiting and Raftery, 2007)                   |
| mse         | (E z - y)^2, as in regression-aware fine-tuning (Lukasik et al., ICLR 2025)                      |
| mae, huber  | of the same residual E z - y                                                                     |
| wasserstein | E |z - y|: the distance of p from a point mass on y                                              |
| soft        | cross-entropy with a normal density around y (HL-Gauss; Imani and White, ICML 2018)              |
| ntl_was     | mean over digits of E |digit - right digit| (number token loss, Wasserstein form; Zausinger et   |
|             | al., ICML 2025); digits along the right answer, so that they know nothing of each other          |

With a head instead of digits there is no distribution: mse, mae and huber take its output for E z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import huber_loss

from stages.regression.readout import Readout

HUBER_DELTA = 0.2  # on the unit scale
BANDWIDTH = 0.1  # of `soft`, standard deviation on the unit scale

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def point_loss(kind: str, predicted: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B] losses of predicted numbers [B]: mse, mae or huber."""
    residual = predicted - values
    if kind == "mse":
        return residual.square()
    if kind == "mae":
        return residual.abs()
    return huber_loss(predicted, values, reduction="none", delta=HUBER_DELTA)


def distribution_loss(kind: str, log_probs: torch.Tensor, leaves: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B] losses of distributions: log_probs [B, L] over `leaves` [L], ascending; any kind but ntl_was."""
    distance = leaves - values[:, None]  # [B, L]
    if kind == "wasserstein":
        return (log_probs.exp() * distance.abs()).sum(-1)
    if kind == "soft":
        target = (-0.5 * (distance / BANDWIDTH).square()).softmax(-1)
        return -(target * log_probs).sum(-1)
    if kind == "crps":
        return _crps(log_probs.exp(), leaves, values)
    return point_loss(kind, (log_probs.exp() * leaves).sum(-1), values)


def _crps(probs: torch.Tensor, leaves: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The integral over z of (P(Z <= z) - 1[y <= z])^2, which both steps' constant pieces make a finite sum."""
    below = probs.cumsum(-1)[:, :-1]  # between neighbouring leaves
    position = (values[:, None] - leaves[:-1]) / leaves.diff()  # of y in each gap: below 0, inside, above 1
    reached = 1 - position.clamp(0, 1)  # the share of the gap that lies beyond y
    gaps = reached * (1 - below).square() + (1 - reached) * below.square()
    outside = (values - leaves[-1]).clamp(min=0) + (leaves[0] - values).clamp(min=0)
    return (gaps * leaves.diff()).sum(-1) + outside


class DigitLoss:
    """The kind ntl_was: at each digit of the right answer, the expected distance from it, in [0, 1].

    As in the paper, what is no digit (a sign beside digits) has no part in it.
    """

    def __init__(self, readout: Readout, texts: Sequence[Sequence[str]]) -> None:
        """texts: of each branching's tokens."""
        num_branchings, num_choices = readout.absent.shape
        self.numbers = torch.zeros(num_branchings, num_choices)
        self.is_digit = torch.zeros(num_branchings, num_choices, dtype=torch.bool)
        for n, tokens in enumerate(texts):
            digits = {k: float(token) for k, token in enumerate(tokens) if token.strip().isdecimal()}
            width = max(digits.values(), default=0) - min(digits.values(), default=0)
            for k, digit in digits.items():
                self.numbers[n, k], self.is_digit[n, k] = digit / max(width, 1), True
        self.readout = readout

    def __call__(self, choices: torch.Tensor, leaf_numbers: torch.Tensor) -> torch.Tensor:
        """[B] from choices [B, N, K] (log probabilities) and the right values' leaves [B]."""
        device = choices.device
        chosen = self.readout.chosen.to(device)[leaf_numbers]  # [B, N], -1 off the right path
        numbers = self.numbers.to(device).expand(len(choices), -1, -1)
        is_digit = self.is_digit.to(device).expand(len(choices), -1, -1)
        index = chosen.clamp(min=0)[..., None]
        counts = (chosen >= 0) & is_digit.gather(-1, index)[..., 0]  # [B, N]
        lowest = torch.finfo(choices.dtype).min  # not -inf: a branching without digits would give NaN
        digits = choices.masked_fill(~is_digit, lowest).softmax(-1)
        distance = (digits * (numbers - numbers.gather(-1, index)).abs()).sum(-1)  # [B, N]
        return (distance * counts).sum(-1) / counts.sum(-1).clamp(min=1)
