"""What changed between two versions of an export: parameters of every stage it was made by, data split, figures.

    train_rag_lora.lora.r: 8 -> 16
    model.name (9 stages): tiny -> qwen2_5_0_5b
    split: 27edfc5d3333 -> 91b0cc51a2f4
    tuned with documents, exact_match: 0.967 [0.913, 1.000] -> 0.978 [0.935, 1.000]

Parameters come from dvc.lock at both commits, figures from the metrics files that the export's card shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core.dvc_lock import Lock, LockedStage, ancestry
from stages.core.errors import ConfigError
from stages.core.git import file_at
from stages.export.card import estimates, figure_text, lookup

WHOLE = "params"  # the stage that checks all of params.yaml; every setting would come twice
NONE = "none"
SPLIT = "split"


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"lora": {"r": 8}} -> {"lora.r": 8}; an empty mapping stays a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        found.update(flat(value, path) if isinstance(value, Mapping) and value else {path: value})
    return found


def params_of(lock: Lock, stage: LockedStage) -> dict[str, Any]:
    """Every parameter that a stage and those it builds on were run with, by its key in params.yaml."""
    stages = [one for one in ancestry(lock, stage) if one.name != WHOLE]
    return {key: value for one in stages for key, value in flat(one.params).items()}


def param_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each setting that differs; what several sections share, and was changed in all alike, is one line."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after = _text(old, key), _text(new, key)
        if before != after:
            groups.setdefault((key.partition(".")[2], before, after), []).append(key)
    return [
        f"{keys[0] if len(keys) == 1 else f'{rest} ({len(keys)} stages)'}: {before} -> {after}"
        for (rest, before, after), keys in groups.items()
    ]


def _text(params: Mapping[str, Any], key: str) -> str:
    return json.dumps(params[key], ensure_ascii=False).strip('"') if key in params else NONE


def figures(root: Path, revision: str, card: Mapping[str, Any]) -> dict[str, str]:
    """Label -> figure with its interval, as an export's card at this revision shows them; the first is the headline.

    card: export_model.card of that revision. What was not measured then is left out.
    """
    found: dict[str, str] = {}
    metrics = _metrics(root, revision, card.get("results", ""))
    for label, key in card.get("figures", {}).items():
        for metric, number in estimates(_looked_up(metrics, key)):
            found[f"{label}, {metric}"] = figure_text(number)
    split = _looked_up(_metrics(root, revision, card.get("data", "")), card.get("split_hash", ""))
    return {**found, **({SPLIT: split[:12]} if isinstance(split, str) else {})}


def figure_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each figure that differs."""
    labels = [*new, *(label for label in old if label not in new)]
    return [
        f"{label}: {old.get(label, NONE)} -> {new.get(label, NONE)}"
        for label in labels
        if old.get(label) != new.get(label)
    ]


def _metrics(root: Path, revision: str, file: str) -> dict[str, Any]:
    text = file_at(root, revision, file) if file else None
    content = json.loads(text) if text else {}
    return content if isinstance(content, dict) else {}


def _looked_up(metrics: Mapping[str, Any], key: str) -> Any:
    try:
        return lookup(metrics, key, "")
    except ConfigError:
        return None


def change_lines(sections: Mapping[str, list[str]]) -> Iterator[str]:
    """The sections that have lines, each under its name."""
    for title, lines in sections.items():
        if lines:
            yield from ["", f"{title}:", *(f"  {line}" for line in lines)]
