from __future__ import annotations

import pytest
import torch

from stages.generation.sampling import Draws, choose


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).expand(4000, -1)

    def shares(temperature: float, top_p: float) -> list[float]:
        draws = [Draws(temperature, top_p, seed) for seed in range(4000)]
        drawn = choose([probabilities[:1000].log(), probabilities[1000:].log()], draws)
        return [drawn.count(token) / 4000 for token in range(4)]

    assert shares(1.0, 1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)
    assert shares(1.0, 0.8) == pytest.approx([0.625, 0.375, 0, 0], abs=0.025)  # .5 + .3 make up .8
    assert shares(1.0, 0.81) == pytest.approx([0.5263, 0.3158, 0.1579, 0], abs=0.025)
    square = [p * p for p in (0.5, 0.3, 0.15, 0.05)]
    assert shares(0.5, 1.0) == pytest.approx([p / sum(square) for p in square], abs=0.025)
