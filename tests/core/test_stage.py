"""How a stage starts: variants, and errors that are messages."""

from __future__ import annotations

import errno

import pytest

from stages.core.errors import ConfigError
from stages.core.stage import stage_main, variants_of, with_variant

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


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"the disk is full \(data/x.jsonl\); make room"),
        (errno.EACCES, r"no right to read or write \(data/x.jsonl\); change the rights"),
    ],
)
def test_what_the_system_refuses_is_a_message(monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    from stages import make_demo

    def full(config: object, workspace: object) -> None:
        raise OSError(number, "refused", "data/x.jsonl")

    full.__module__ = make_demo.__name__
    monkeypatch.setattr("sys.argv", ["make_demo"])
    for of_the_process in ("die_with_parent", "keep_read_only_files"):
        monkeypatch.setattr(f"stages.core.stage.{of_the_process}", lambda: None)
    monkeypatch.setattr("stages.core.stage.end_in_one_line", lambda name: None)
    with pytest.raises(SystemExit, match=f"make_demo: error: {message}"):
        stage_main(make_demo.Config, full)()
