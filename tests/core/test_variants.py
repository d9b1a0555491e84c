"""A stage with variants: which settings each of them has."""

from __future__ import annotations

import pytest

from stages.core.errors import ConfigError
from stages.core.stage import variants_of, with_variant

SECTION = {
    "r": 8,
    "loss": {"kind": "mse", "weight": 10},
    "variant": "",
    "variants": {"ce": {"loss": {"weight": 0}}, "b": {}},
}


def test_a_variant_wins_over_the_section() -> None:
    assert variants_of(SECTION) == ["ce", "b"]
    assert with_variant(SECTION, "ce", "s") == {"r": 8, "loss": {"kind": "mse", "weight": 0}, "variant": "ce"}
    assert with_variant(SECTION, "b", "s") == {"r": 8, "loss": {"kind": "mse", "weight": 10}, "variant": "b"}


def test_a_section_without_variants_is_itself() -> None:
    assert variants_of({"r": 8}) == [""]
    assert with_variant({"r": 8}, "", "s") == {"r": 8}


@pytest.mark.parametrize(
    ("section", "variant", "message"),
    [
        (SECTION, "", "s: no variant given; there are @ce, @b"),
        (SECTION, "x", "s: @x given; there are @ce, @b"),
        ({"r": 8}, "ce", "s: @ce given; there are none"),
    ],
)
def test_a_missing_or_unknown_variant_is_refused(section: dict[str, object], variant: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_variant(section, variant, "s")
