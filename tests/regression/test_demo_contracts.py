"""The demo's market: its true correlations follow from the texts, and its prices show them."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from stages.regression.correlation import Series, correlate
from stages.regression.demo_contracts import (
    DIRECTIONS,
    STRENGTH_SPREAD,
    STRENGTHS,
    THEMES,
    VERBS,
    Contract,
    daily_prices,
    factor_changes,
    invent_contracts,
    relation,
    true_correlation,
    true_correlations,
)

CONTRACTS = invent_contracts(13, 48)


def read_off(contract: Contract) -> tuple[str, float]:
    """(theme, loading) from the texts alone."""
    verb = contract.title.split()[-1]
    direction = next(sign for sign, verbs in VERBS.items() if verb in verbs)
    match = re.fullmatch(r"It is (\w+) about the (\w+)\.", contract.description)
    assert match
    return match[2], direction * STRENGTHS[match[1]]


def test_the_truth_can_be_read_off_the_texts() -> None:
    for a, b in combinations(CONTRACTS, 2):
        (theme_a, loading_a), (theme_b, loading_b) = read_off(a), read_off(b)
        expected = loading_a * loading_b * relation(theme_a, theme_b)
        assert true_correlation(a, b) == pytest.approx(expected, abs=2 * STRENGTH_SPREAD)


def test_names_mean_nothing_and_are_unique() -> None:
    names = [contract.title.split()[2] for contract in CONTRACTS]
    assert len(set(names)) == len(names)


def test_traits_are_shared_out_evenly() -> None:
    contracts = invent_contracts(1, len(THEMES) * 3 * len(DIRECTIONS) * len(STRENGTHS))
    for theme in THEMES:
        assert sum(contract.theme == theme for contract in contracts) == len(contracts) / len(THEMES)
    assert sum(contract.loading < 0 for contract in contracts) == len(contracts) * DIRECTIONS.count(-1) / len(
        DIRECTIONS
    )


def test_relations_are_a_correlation_matrix() -> None:
    matrix = np.array([[relation(a, b) for b in THEMES] for a in THEMES])
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()
    assert np.linalg.eigvalsh(matrix).min() > 0.1


def test_factors_are_correlated_as_the_relations_say() -> None:
    days = [factor_changes(seed) for seed in range(40)]
    stacked = np.array([[change for factors in days for change in factors[theme]] for theme in THEMES])
    wanted = [[relation(a, b) for b in THEMES] for a in THEMES]
    assert np.corrcoef(stacked) == pytest.approx(np.array(wanted), abs=0.05)


def test_prices_show_the_true_correlations() -> None:
    factors = factor_changes(13)
    series = {}
    for contract in CONTRACTS:
        days, prices = zip(*daily_prices(13, contract, factors), strict=True)
        assert 0 < min(prices) <= max(prices) < 1
        assert days[-1] < contract.closes_at
        series[contract.id] = Series(np.array([np.datetime64(d) for d in days]).astype(np.int64), np.array(prices))
    rows = [(correlate(series[a], series[b], True, 60)[0], true) for a, b, true in true_correlations(CONTRACTS)]
    observed, true = np.array(rows).T
    ceiling = 1 - ((observed - true) ** 2).sum() / ((observed - observed.mean()) ** 2).sum()
    assert ceiling > 0.93
    assert (np.abs(observed - true) <= 0.2).mean() > 0.95
    assert np.abs(observed.mean()) < 0.15
    assert observed.std() > 0.35


def test_the_seed_decides() -> None:
    assert invent_contracts(13, 20) == invent_contracts(13, 20) != invent_contracts(14, 20)
