"""Parameters that differ, each setting once.

conf/ is composed into params.yaml, where a setting stands in every section that uses it (`model.name` in a dozen):
such rows are one, with the places counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.config import flat

ABSENT = "-"


@dataclass(frozen=True)
class ParamChange:
    """One setting; `places` are the keys that hold it. before and after are text, `-` where it is not there."""

    key: str
    places: list[str]
    before: str
    after: str


def params_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ParamChange]:
    """In the order of params.yaml, what is gone last."""
    old, new = flat(before), flat(after)
    shared = {*before, *after}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for key in dict.fromkeys([*new, *old]):
        values = _text(old, key), _text(new, key)
        if values[0] != values[1]:
            groups.setdefault((_setting(key, shared), *values), []).append(key)
    return [ParamChange(key, places, *values) for (key, *values), places in groups.items()]


def _setting(key: str, shared: set[str]) -> str:
    """`model.name` for `train.model.name`, as the group `model` is there on its own; else the key itself."""
    _, _, rest = key.partition(".")
    return rest if rest.partition(".")[0] in shared else key


def _text(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return ABSENT
    value = values[key]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
