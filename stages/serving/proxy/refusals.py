"""What pydantic finds wrong with a request, as an error of the API: one, named by its place in the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.serving.proxy.errors import ApiError

MAX_PARAM_CHARS = 200
Place = tuple[str | int, ...]


def refusal(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The first thing that does not fit; without the value, which may be anything.

    Of a place that may hold several forms (a text, or a list) each form has its errors: those count that got furthest.
    """
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, "invalid_json", "the request is no JSON that can be read")
    placed = [(_place(error["loc"][1:], body), error) for error in errors]
    first = placed[0][0]
    same = [(place, error) for place, error in placed if place[: len(first)] == first]
    place, furthest = max(same, key=_progress)
    alike = [error for other, error in same if _progress((other, error)) == _progress((place, furthest))]
    message = ", or: ".join(dict.fromkeys(map(_message, alike)))
    code = "unknown_parameter" if furthest["type"] == "extra_forbidden" else furthest["type"]
    return ApiError(400, code, message, _named(place) or None)


def _place(loc: Sequence[str | int], body: Any) -> Place:
    """Without the names of forms, which pydantic puts between: they stand nowhere in the request."""
    place: list[str | int] = []
    value = body
    for part in loc:
        if isinstance(value, dict) and (not place or part != place[-1]):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        place.append(part)
    return tuple(place)


def _progress(found: tuple[Place, Mapping[str, Any]]) -> tuple[int, bool]:
    place, error = found
    return len(place), not error["type"].endswith("_type")


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown parameter"
    if error["type"] == "union_tag_invalid":
        return f"type has to be one of {error['ctx']['expected_tags']}"
    return str(error["msg"])


def _named(place: Place) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).lstrip(".")[:MAX_PARAM_CHARS]
