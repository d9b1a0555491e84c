"""The plan of a benchmark of 60 kills: what it must hold, whatever the seed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kill_plan import WAYS, plan_kills
from small_clone import Stage
from traces import HALF_CHECKPOINT, HALF_LOCK, HALF_OUTPUT, PAST_CHECKPOINT

NAMES = [*(f"data_{number}" for number in range(17)), "base_model", *(f"train_{number}" for number in range(5))]
STAGES = [Stage(name, ["python", "-m", name], [], 1.0) for name in NAMES]


@pytest.mark.parametrize("seed", range(20))
def test_sixty_kills_hold_every_stage_every_way_and_every_sight(seed: int) -> None:
    plan = plan_kills(STAGES, 60, seed)
    assert {kill.stage for kill in plan} == set(NAMES)
    assert {(kill.through, kill.target, kill.signal) for kill in plan} == set(WAYS)
    of_training = [kill.moment for kill in plan if kill.stage.startswith(("train_", "base_model"))]
    assert {HALF_CHECKPOINT, PAST_CHECKPOINT, HALF_OUTPUT} <= set(of_training)
    assert HALF_LOCK in {kill.moment for kill in plan}
    assert all(0 < kill.delay_s <= 0.5 for kill in plan if kill.moment == PAST_CHECKPOINT)


def test_the_same_seed_draws_the_same_plan() -> None:
    assert plan_kills(STAGES, 60, 3) == plan_kills(STAGES, 60, 3) != plan_kills(STAGES, 60, 4)
