"""What a model says about pairs: a distribution over values for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Of one model on N pairs. values: [L], ascending; probabilities: [N, L], rows add up to 1.

    greedy: [N], of constrained greedy decoding. head: [N], where the model has one.
    """

    ids: list[str]
    values: Floats
    probabilities: Floats
    greedy: Floats
    head: Floats | None = None

    @property
    def expected(self) -> Floats:
        """[N]: the value with the least expected squared error (regression-aware decoding; Lukasik et al., 2024)."""
        expected: Floats = self.probabilities @ self.values
        return expected

    @property
    def std(self) -> Floats:
        """[N]: the spread of each distribution."""
        variance = self.probabilities @ self.values**2 - self.expected**2
        std: Floats = np.sqrt(variance.clip(min=0))
        return std

    def quantile(self, level: float) -> Floats:
        """[N]: the smallest value that is not exceeded with probability `level`."""
        cumulative = self.probabilities.cumsum(axis=1)
        reached = cumulative >= min(level, 1.0) - 1e-9  # rounding: the last column need not be exactly 1
        values: Floats = self.values[reached.argmax(axis=1)]
        return values
