"""Closed configuration: a section becomes its dataclass, and what does not fit is refused by its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from stages.core.errors import ConfigError

Section = TypeVar("Section")


def parse_section(cls: type[Section], values: Mapping[str, Any] | Any, name: str) -> Section:
    """`values` checked against the dataclass `cls`; `name` is the section's name, for messages.

    Raises ConfigError naming the full key of an unknown key, a wrong type, a missing value, or
    whatever `__post_init__` of a dataclass refuses (it raises ValueError).
    """
    try:
        # Resolved first: merging unresolved interpolations into a schema loses their context.
        plain = OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else dict(values)
        parsed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), plain))
    except ConfigKeyError as error:
        raise ConfigError(f"{_key(name, error)}: unknown key; the section {name} has no such setting") from error
    except MissingMandatoryValue as error:
        raise ConfigError(f"{_key(name, error)}: value is missing") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_key(name, error)}: {str(error).splitlines()[0]}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name}: {error}") from error
    return parsed  # type: ignore[return-value]  # to_object returns the structured class


def _key(name: str, error: OmegaConfBaseException) -> str:
    return f"{name}.{error.full_key}" if error.full_key else name


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"lora": {"r": 8}} -> {"lora.r": 8}; an empty mapping stays a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        found.update(flat(value, path) if isinstance(value, Mapping) and value else {path: value})
    return found
