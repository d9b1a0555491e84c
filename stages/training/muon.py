"""Muon for stacks of matrices, AdamW for the rest, with a state that fits into a flat checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration
NUM_ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """[S, rows, columns] -> nearest semi-orthogonal matrices, roughly, in bfloat16: all of a stack in one go.

    Source: Keller Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/
    """
    a, b, c = NEWTON_SCHULZ
    transposed = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if transposed else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x.mT if transposed else x).float()
    return result


@dataclass
class Muon:
    """`stacks` [..., rows, columns] are updated by orthogonalised Nesterov momentum, `others` by AdamW.

    Updates of stacks have the root mean square of AdamW's (factor 0.2 sqrt(max(rows, columns)); Moonlight,
    arXiv:2502.16982), so that one learning rate serves both.
    """

    stacks: list[Tensor]
    others: list[Tensor]
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        self.num_steps = 0
        self.velocities = [torch.zeros_like(p) for p in self.stacks]
        self.means = [torch.zeros_like(p) for p in self.others]
        self.squares = [torch.zeros_like(p) for p in self.others]

    def state(self) -> list[Tensor]:
        """What a checkpoint has to keep beside the weights and `num_steps`."""
        return [*self.velocities, *self.means, *self.squares]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], learning_rate: float) -> None:
        """One update; gradients in the order of `stacks`, then `others`."""
        self.num_steps += 1
        num_stacks = len(self.stacks)
        for stack, velocity, gradient in zip(self.stacks, self.velocities, gradients[:num_stacks], strict=True):
            velocity.lerp_(gradient, 1 - self.momentum)
            nesterov = gradient.lerp(velocity, self.momentum)
            update = orthogonalised(nesterov.flatten(0, -3)).view_as(stack)
            stack.mul_(1 - learning_rate * self.weight_decay)
            stack.sub_(update, alpha=learning_rate * 0.2 * max(stack.shape[-2:]) ** 0.5)
        beta1, beta2 = self.betas
        for other, mean, square, gradient in zip(
            self.others, self.means, self.squares, gradients[num_stacks:], strict=True
        ):
            mean.lerp_(gradient, 1 - beta1)
            square.lerp_(gradient.square(), 1 - beta2)
            corrected = (square / (1 - beta2**self.num_steps)).sqrt_().add_(1e-8)
            other.addcdiv_(mean, corrected, value=-learning_rate / (1 - beta1**self.num_steps))
