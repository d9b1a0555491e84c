"""Which stage is killed how and when: drawn, but so that every way and every sight gets its turn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import TypeVar

from small_clone import Stage
from traces import HALF_CHECKPOINT, HALF_LOCK, HALF_OUTPUT, PAST_CHECKPOINT

Card = TypeVar("Card")

# Started by a person (stage) or by DVC; to the group, as Ctrl-C goes, to the started process alone, as `kill` does, or to
# the stage's process below DVC. DVC itself ignores Ctrl-C while a stage runs: it is the stage that has to end.
WAYS = [
    (through, target, number)
    for through, targets in {"stage": ["group", "process"], "dvc": ["group", "process", "stage"]}.items()
    for target in targets
    for number in (SIGKILL, SIGTERM, SIGINT)
    if (through, target, number) != ("dvc", "process", SIGINT)
]
SIGHTS_OF_TRAINING = [HALF_CHECKPOINT, PAST_CHECKPOINT, PAST_CHECKPOINT, HALF_OUTPUT, None, None]
SIGHTS = [HALF_OUTPUT, None, None, None]
SIGHTS_OF_DVC = [HALF_LOCK, None, None, None]


@dataclass(frozen=True)
class Kill:
    """through: stage or dvc. target: group, process or stage. moment: a share of the run time, or what to wait for.

    delay_s: after that sight; past a checkpoint, it is some moment within a step.
    """

    stage: str
    through: str
    target: str
    signal: Signals
    moment: float | str
    delay_s: float = 0.0


def plan_kills(stages: Sequence[Stage], num_kills: int, seed: int) -> list[Kill]:
    """Kills of all stages in turn, trainings twice as often."""
    drawn = random.Random(seed)
    turns = [*stages, *(stage for stage in stages if stage.trains)]
    ways, of_training, of_others, of_dvc = (
        _deck(drawn, cards) for cards in (WAYS, SIGHTS_OF_TRAINING, SIGHTS, SIGHTS_OF_DVC)
    )
    plan = []
    for number in range(num_kills):
        stage, (through, target, signal) = turns[number % len(turns)], next(ways)
        sight = next(of_training if stage.trains else of_others)
        if sight is None and through == "dvc" and target != "stage":
            sight = next(of_dvc)
        delay_s = drawn.uniform(0.0, 0.5) if sight == PAST_CHECKPOINT else 0.0
        plan.append(Kill(stage.name, through, target, signal, sight or drawn.uniform(0.0, 1.0), delay_s))
    return plan


def _deck(drawn: random.Random, cards: Sequence[Card]) -> Iterator[Card]:
    """All cards in a new order, again and again."""
    while True:
        yield from drawn.sample(cards, len(cards))
