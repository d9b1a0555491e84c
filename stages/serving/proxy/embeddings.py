"""Vectors by the embedder that an index was made with."""

from __future__ import annotations

import base64
from typing import Any

from stages.serving.proxy.catalogue import Catalogue
from stages.serving.proxy.domains import ServedDomain
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.limits import Gate
from stages.serving.proxy.schema import EmbeddingRequest
from stages.serving.proxy.settings import Limits


async def embed(request: EmbeddingRequest, catalogue: Catalogue, gate: Gate, limits: Limits) -> dict[str, Any]:
    """An EmbeddingList. Raises ApiError."""
    texts = [request.input] if isinstance(request.input, str) else request.input
    if len(texts) > limits.max_inputs:
        raise invalid(f"at most {limits.max_inputs} texts", "input", "too_many_inputs")
    domain = _domain_of(request.model, catalogue)
    domain.check_index()
    dimension = domain.config.embedder.dimension
    if request.dimensions not in (None, dimension):
        raise invalid(f"this embedder has {dimension} dimensions", "dimensions")
    async with domain.used(), gate.place():
        vectors, num_tokens = await domain.retriever.embed(texts, request.input_type)
    rows = [
        {"object": "embedding", "index": n, "embedding": _encoded(vector, request.encoding_format)}
        for n, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "data": rows, "model": request.model, "usage": usage}


def _domain_of(embedder: str, catalogue: Catalogue) -> ServedDomain:
    """The first domain with an embedder of this name."""
    names = []
    for domain in catalogue.domains.values():
        if domain.config.embedder.name == embedder:
            return domain
        names.append(domain.config.embedder.name)
    known = ", ".join(dict.fromkeys(names))
    raise ApiError(404, "model_not_found", f"no such embedder; there is {known}", "model")


def _encoded(vector: Any, encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers
