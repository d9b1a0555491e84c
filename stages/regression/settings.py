"""Settings that training, evaluation and serving of a regression share."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from stages.core.schema import one_of

POINT_KINDS = ("mse", "mae", "huber")
KINDS = ("crps", *POINT_KINDS, "wasserstein", "soft", "ntl_was")
READOUTS = ("digits", "head")


@dataclass
class LossSettings:
    """The regression part of the loss; regression.losses says what the kinds are."""

    kind: str = MISSING
    weight: float = MISSING  # 0: cross-entropy alone
    readout: str = MISSING  # digits: an expectation over whole values | head: a linear head
    max_nodes: int = MISSING  # of the tree of values; further digits count as their mean
    log_gradients_every: int = MISSING  # steps between measuring each part's gradient norm; 0: never

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "loss.kind")
        one_of(self.readout, READOUTS, "loss.readout")
        if self.readout == "head" and self.kind not in POINT_KINDS:
            raise ValueError(f"loss.kind: a head gives one number, no distribution: {', '.join(POINT_KINDS)}")
        if self.weight < 0:
            raise ValueError("loss.weight: must not be negative")
        if self.max_nodes < 1 or self.log_gradients_every < 0:
            raise ValueError("loss: max_nodes must be at least 1, log_gradients_every at least 0")
