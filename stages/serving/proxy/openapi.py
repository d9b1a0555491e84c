"""The API's schema says what the code demands: the limits that are configured, beside what the models state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.serving.proxy.settings import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI


def state_limits(app: FastAPI, limits: Limits) -> None:
    """Writes them into the schema of an application that has all its routes."""
    components = app.openapi()["components"]["schemas"]  # the application keeps it
    most = {
        "ChatRequest": {
            "messages": limits.max_messages,
            "n": limits.max_choices,
            "max_tokens": limits.max_new_tokens,
            "max_completion_tokens": limits.max_new_tokens,
        },
        "RagOptions": {"top_k": limits.max_top_k, "siblings": limits.max_siblings},
        "RetrieveRequest": {"top_k": limits.max_top_k, "siblings": limits.max_siblings},
        "EmbeddingRequest": {"input": limits.max_inputs},
        "PredictRequest": {"pairs": limits.max_inputs},
    }
    for model, fields in most.items():
        for field, value in fields.items():
            _state(components[model]["properties"][field], value)


def _state(schema: dict[str, Any], most: int) -> None:
    for form in schema.get("anyOf", [schema]):
        if keyword := {"array": "maxItems", "integer": "maximum"}.get(form.get("type", "")):
            form[keyword] = most
