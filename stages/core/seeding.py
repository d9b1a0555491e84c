"""The one place that seeds."""

from __future__ import annotations

import random


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, and asks torch for deterministic kernels where they exist."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def derived_random(seed: int, *purpose: str) -> random.Random:
    """A generator of its own for each purpose, so that drawing more in one place moves nothing elsewhere."""
    return random.Random("/".join([str(seed), *purpose]))
