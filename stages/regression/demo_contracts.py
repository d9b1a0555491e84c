"""An invented prediction market whose correlations can be read off the contracts' texts.

    {"id": "c-0017", "title": "The island Rinwin wins", "description": "It is mainly about the harbor.",
     "category": "harbor", "closes_at": "2031-10-04"}

Each day every theme moves by a latent factor. A contract's price (through a logistic curve) follows its theme's factor
with a strength, up or down, and noise of its own, so that the true correlation of the changes of two prices is

    direction_a * direction_b * strength_a * strength_b * relation(theme_a, theme_b)

The first four stand in the texts (the verb, the adverb), the relation has to be learnt from pairs of themes. Each
contract's strength strays a little from what its adverb says. Names are invented and mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations, product
from random import Random

from stages.core.seeding import derived_random
from stages.knowledge.invented_words import invent_word

# The words are ones that the tiny base knows: short prompts, and nothing to learn but how the pairs work.
THEMES = ("storm", "harbor", "market", "orchard")
NEXT, OPPOSITE = 0.5, 0.2  # correlations of themes beside each other on the ring of themes, and across it
KINDS = {
    "storm": ("bridge", "tower", "castle"),
    "harbor": ("ship", "island", "lighthouse"),
    "market": ("guild", "bakery", "inn"),
    "orchard": ("mill", "garden", "village"),
}
NUM_KINDS = 3  # of a theme
VERBS = {1: ("rises", "wins"), -1: ("falls", "loses")}
# Were both directions as frequent, the sign of a pair would be a pure parity (exclusive or) of two words, with nothing
# to be learnt from either alone: the tiny base then stays at chance for many epochs.
DIRECTIONS = (1, 1, 1, -1)
STRENGTHS = {"all": 0.98, "mainly": 0.85, "partly": 0.6}
STRENGTH_SPREAD = 0.02  # a contract's own strength lies at most so far from its adverb's

FIRST_DAY = date(2031, 1, 1)
NUM_DAYS = 300
MAX_LATE_DAYS = 40  # a contract is listed, and closes, at most so many days inside the span
REVERSION, VOLATILITY = 0.95, 0.12  # of the logit of a price: amplitudes small enough for an almost linear curve
DECIMALS = 5


@dataclass(frozen=True)
class Contract:
    """`loading`: direction * strength, the correlation of the contract's changes with its theme's factor."""

    id: str
    title: str
    description: str
    theme: str
    loading: float
    first_day: int
    num_days: int

    @property
    def closes_at(self) -> str:
        return day(self.first_day + self.num_days)


def day(number: int) -> str:
    """The ISO date of a day of the market, counted from 0."""
    return (FIRST_DAY + timedelta(days=number)).isoformat()


def true_correlation(a: Contract, b: Contract) -> float:
    """The correlation of the latent changes of two contracts: what an endless sample of prices would show."""
    return a.loading * b.loading * relation(a.theme, b.theme)


def relation(theme_a: str, theme_b: str) -> float:
    """The correlation of the factors of two themes; the ring's matrix is positive definite (eigenvalues .2 to 2.2)."""
    steps = abs(THEMES.index(theme_a) - THEMES.index(theme_b))
    return (1.0, NEXT, OPPOSITE, NEXT)[steps]


def invent_contracts(seed: int, num_contracts: int) -> list[Contract]:
    """Contracts that share out all combinations of theme, kind, direction and strength evenly, in random order."""
    random = derived_random(seed, "contracts")
    combinations_ = list(product(THEMES, range(NUM_KINDS), DIRECTIONS, STRENGTHS))
    traits: list[tuple[str, int, int, str]] = []
    while len(traits) < num_contracts:
        random.shuffle(combinations_)
        traits += combinations_
    names = _names(random, num_contracts)
    return [
        _contract(f"c-{number:04d}", names[number], *traits[number], random=random) for number in range(num_contracts)
    ]


def _names(random: Random, count: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        names[invent_word(random, reserved=True)] = None
    return list(names)


def _contract(
    identifier: str, name: str, theme: str, kind: int, direction: int, adverb: str, random: Random
) -> Contract:
    strength = STRENGTHS[adverb] + random.uniform(-STRENGTH_SPREAD, STRENGTH_SPREAD)
    late, early = random.randint(0, MAX_LATE_DAYS), random.randint(0, MAX_LATE_DAYS)
    return Contract(
        id=identifier,
        title=f"The {KINDS[theme][kind]} {name} {random.choice(VERBS[direction])}",
        description=f"It is {adverb} about the {theme}.",
        theme=theme,
        loading=direction * min(strength, 1.0),
        first_day=late,
        num_days=NUM_DAYS - late - early,
    )


def factor_changes(seed: int) -> dict[str, list[float]]:
    """theme -> its factor's daily changes, float[NUM_DAYS]: standard normal, correlated as RELATIONS says."""
    random = derived_random(seed, "factors")
    lower = _cholesky([[relation(a, b) for b in THEMES] for a in THEMES])
    changes: dict[str, list[float]] = {theme: [] for theme in THEMES}
    for _ in range(NUM_DAYS):
        shocks = [random.gauss(0, 1) for _ in THEMES]
        for theme, weights in zip(THEMES, lower, strict=True):
            changes[theme].append(sum(weight * shock for weight, shock in zip(weights, shocks, strict=True)))
    return changes


def _cholesky(matrix: list[list[float]]) -> list[list[float]]:
    """L with L @ L.T = matrix (symmetric, positive definite); written out so that this stage needs no NumPy."""
    lower = [[0.0] * len(matrix) for _ in matrix]
    for row, values in enumerate(matrix):
        for column in range(row + 1):
            rest = values[column] - sum(lower[row][k] * lower[column][k] for k in range(column))
            lower[row][column] = math.sqrt(rest) if row == column else rest / lower[column][column]
    return lower


def daily_prices(seed: int, contract: Contract, factors: dict[str, list[float]]) -> Iterator[tuple[str, float]]:
    """(day, price in (0, 1)) for each day that the contract is listed."""
    random = derived_random(seed, "prices", contract.id)
    own = math.sqrt(1 - contract.loading**2)
    logit = random.gauss(0, VOLATILITY)
    for number in range(contract.first_day, contract.first_day + contract.num_days):
        change = contract.loading * factors[contract.theme][number] + own * random.gauss(0, 1)
        logit = REVERSION * logit + VOLATILITY * change
        yield day(number), round(1 / (1 + math.exp(-logit)), DECIMALS)


def true_correlations(contracts: list[Contract]) -> Iterator[tuple[str, str, float]]:
    """(id, id, true correlation) of every pair."""
    for a, b in combinations(contracts, 2):
        yield a.id, b.id, round(true_correlation(a, b), 6)
