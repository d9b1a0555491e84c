from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING, OmegaConf

from stages.core.config import parse_section
from stages.core.errors import ConfigError
from stages.core.schema import Lora, Model, Prompt


@dataclass
class Inner:
    r: int = MISSING


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: list[str] = field(default_factory=list)
    rate: float = 0.5


def test_values_arrive_typed() -> None:
    parsed = parse_section(Outer, {"inner": {"r": 4}, "names": ["a"], "rate": 1}, "outer")
    assert parsed == Outer(Inner(4), ["a"], 1.0)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"inner": {"r": 4, "rr": 1}}, "outer.inner.rr: unknown key"),
        ({"inner": {"r": "four"}}, "outer.inner.r:"),
        ({"inner": {}}, "outer.inner.r: value is missing"),
        ({"inner": {"r": 4}, "rates": 2}, "outer.rates: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_section(Outer, values, "outer")


def test_interpolations_are_resolved_before_they_are_checked() -> None:
    config = OmegaConf.create({"seed": 4, "outer": {"inner": {"r": "${seed}"}}})
    assert parse_section(Outer, config.outer, "outer").inner.r == 4


def test_post_init_errors_name_section_and_setting() -> None:
    with pytest.raises(ConfigError, match=r"x: lora.modules"):
        parse_section(Lora, {"r": 8, "alpha": 8}, "x")
    with pytest.raises(ConfigError, match=r"model.revision: a hub model is pinned"):
        parse_section(Model, {"name": "m", "kind": "hub", "path": "a/b", "max_context_tokens": 1}, "model")
    with pytest.raises(ConfigError, match=r"placeholder \{text\} is missing"):
        parse_section(
            Prompt,
            {
                "name": "p",
                "with_documents": "{documents}",
                "without_documents": "",
                "documents": "{documents}",
                "document": "{number}",
                "abstain": "",
            },
            "prompt",
        )
