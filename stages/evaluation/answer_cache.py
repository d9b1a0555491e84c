"""Answers of a model that has not changed are not written again: when only the adapter is new, base and book are not.

The cache (.cache/answers/<key>.json, to be deleted at any time) is keyed by everything that can change an answer:
the bytes of the weights, the prompts and references, how they are decoded and by which code and libraries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json
from stages.core.fingerprint import fingerprint, sha256_files
from stages.evaluation import answering
from stages.evaluation.answering import Answer, Condition
from stages.generation import decoding
from stages.generation.loading import device

Answers = dict[str, dict[str, Answer]]  # condition -> example id

LIBRARIES = ("torch", "transformers", "tokenizers")
CODE = (answering.__file__, decoding.__file__)


def answers_key(weights: Path, conditions: Mapping[str, Condition], *settings: Any) -> str:
    """settings: whatever else the answers depend on, JSON-able or dataclasses."""
    asked = {
        condition: [(example.id, example.question, example.answer, list(documents)) for example, documents in rows]
        for condition, rows in conditions.items()
    }
    libraries = [version(name) for name in LIBRARIES]
    code = [Path(file) for file in CODE]
    return fingerprint(sha256_files(weights, "*.safetensors"), asked, libraries, device(), *code, *settings)


def remembered(cache: Path, key: str, answer: Callable[[], Answers]) -> Answers:
    """The answers that are cached under `key`, or those that `answer` gives now."""
    path = cache / f"{key}.json"
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {condition: {i: Answer(*row) for i, row in found.items()} for condition, found in rows.items()}
    answers = answer()
    write_json(path, {c: {i: astuple(found) for i, found in rows.items()} for c, rows in answers.items()})
    return answers
