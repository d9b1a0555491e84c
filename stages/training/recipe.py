"""The settings of a pre-training; `base_model.recipe` in conf/model/<model>.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass(frozen=True)
class Shape:
    """Sizes of a model with tied embeddings and as many key-value heads as heads."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    max_positions: int

    @property
    def num_parameters(self) -> int:
        """All weights, the shared embedding once."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden


@dataclass
class Phase:
    """A stretch of training: its batches, and what its text is like (shares of pieces are relative)."""

    num_steps: int = MISSING
    batch_size: int = MISSING  # rows of each process
    length: int = MISSING  # tokens of a row
    max_documents: int = MISSING  # in one prompt
    shares: dict[str, float] = field(default_factory=dict)  # chat, plain, story, copy, docstring


@dataclass
class Recipe:
    """The model's sizes and its training."""

    vocabulary: int = MISSING
    hidden: int = MISSING
    intermediate: int = MISSING
    layers: int = MISSING
    heads: int = MISSING
    max_positions: int = MISSING
    learning_rate: float = MISSING
    warmup_steps: int = MISSING
    decay_share: float = MISSING  # of all steps, the last ones
    num_processes: int = MISSING
    checkpoint_every_steps: int = MISSING
    phases: list[Phase] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """The sizes of the model."""
        return Shape(self.vocabulary, self.hidden, self.intermediate, self.layers, self.heads, self.max_positions)

    @property
    def num_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.num_steps for phase in self.phases)
