"""Pairs of texts with a number, from a database or files, in two splits that are proven not to leak.

    contracts c-0017 and c-0102 with their daily prices
 -> {"id": "c-0017--c-0102", "a": "The island Rinwin wins. ...", "b": "...", "value": -0.41, ...}

Reads the task's source (conf/regression). Writes data/<task>/pairs/: by_contract/ and by_pair/ with train, validation
and test.jsonl each, splits.json (sizes and SHA-256), rejected.jsonl; and reports/<task>/load_pairs/metrics.json.

    python -m stages.load_pairs
    python -m stages.load_pairs load_pairs.limit=10
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import new_folder, write_json
from stages.core.fingerprint import sha256_file
from stages.core.jsonl import write_jsonl
from stages.core.schema import one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.regression import file_pairs, sql_pairs
from stages.regression.database import connect
from stages.regression.pair_splits import Split, cap, contracts_of, prove_disjoint, split_by_contract, split_by_pair
from stages.regression.pairs import Pair, admit
from stages.regression.sql_pairs import SqlLedgers
from stages.regression.task import PARTS, RegressionTask

DECIMALS = 6  # of reported shares and moments


@dataclass
class Config:
    """Mirrors conf/load_pairs."""

    task: RegressionTask = MISSING
    seed: int = MISSING
    split: dict[str, float] = field(default_factory=dict)  # shares of the pairs
    max_pairs: dict[str, int] = field(default_factory=dict)  # of each part, in each split; 0: all
    limit: int = 0  # pairs of each part, for a quick look; 0: max_pairs holds
    conflicting_values: str = MISSING  # the same pair with different values: reject | first
    max_rejected_share: float = MISSING

    def __post_init__(self) -> None:
        one_of(self.conflicting_values, ("reject", "first"), "conflicting_values")
        for key, parts in (("split", self.split), ("max_pairs", self.max_pairs)):
            if set(parts) != set(PARTS):
                raise ValueError(f"{key}: needs {', '.join(PARTS)}")
        if min(self.split.values()) <= 0 or not math.isclose(sum(self.split.values()), 1.0):
            raise ValueError("split: shares must be above 0 and add up to 1")
        if min(self.limit, *self.max_pairs.values()) < 0:
            raise ValueError("max_pairs and limit are not negative; 0: all")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Writes the pairs; returns the metrics."""
    ledgers = SqlLedgers()
    pairs = _read(config, workspace, ledgers)
    for ledger in (ledgers.contracts, ledgers.pairs) if ledgers.contracts.num_read else (ledgers.pairs,):
        ledger.check(len(pairs) if ledger is ledgers.pairs else ledger.num_kept, config.max_rejected_share)
    splits = _split(config, pairs)
    metrics = {**ledgers.metrics(), "value": _moments(pairs), "splits": {k: _sizes(s) for k, s in splits.items()}}
    with new_folder(workspace.write(f"data/{config.task.name}/pairs")) as folder:
        _write(folder, config, splits)
        write_jsonl(folder / "rejected.jsonl", ledgers.rejections())
    write_json(workspace.write(f"reports/{config.task.name}/load_pairs/metrics.json"), metrics)
    return metrics


def _read(config: Config, workspace: Workspace, ledgers: SqlLedgers) -> list[Pair]:
    task = config.task
    if task.source == "files":
        found = file_pairs.read_pairs(task, workspace, ledgers.pairs)
        return admit(found, task, ledgers.pairs, config.conflicting_values)
    with connect(task.sql.url, workspace) as database:
        found = sql_pairs.read_pairs(task.sql, database, config.seed, ledgers)
        return admit(found, task, ledgers.pairs, config.conflicting_values)


def _split(config: Config, pairs: list[Pair]) -> dict[str, Split]:
    """Both splits, capped and proven free of leaks."""
    task, seed = config.task, config.seed
    max_pairs = dict.fromkeys(PARTS, config.limit) if config.limit else config.max_pairs
    whole = {
        "by_contract": split_by_contract(pairs, config.split, seed, task.split_by == "component"),
        "by_pair": split_by_pair(pairs, config.split, seed, task.split == "official"),
    }
    splits = {name: cap(split, max_pairs, seed) for name, split in whole.items()}
    for name, split in splits.items():
        prove_disjoint(f"{task.name}, {name}", split, by_contract=name == "by_contract")
    return splits


def _sizes(split: Split) -> dict[str, Any]:
    """Real sizes and shares, which come near the wanted ones only."""
    total = sum(map(len, split.parts.values()))
    parts = {
        part: {
            "num_pairs": len(pairs),
            "share": round(len(pairs) / total, DECIMALS),
            "num_contracts": sum(key.startswith("id/") for key in contracts_of(pairs)),
        }
        for part, pairs in split.parts.items()
    }
    return {**parts, "num_mixed_dropped": split.num_mixed, "num_left_out": split.num_left_out}


def _moments(pairs: list[Pair]) -> dict[str, Any]:
    values = [pair.value for pair in pairs]
    moments = {"mean": fmean(values), "std": pstdev(values), "min": min(values), "max": max(values)}
    categories = Counter(pair.category for pair in pairs if pair.category)
    return {**{k: round(v, DECIMALS) for k, v in moments.items()}, "num_categories": len(categories)}


def _write(folder: Path, config: Config, splits: Mapping[str, Split]) -> None:
    manifest: dict[str, Any] = {"seed": config.seed, "task": config.task.name}
    for name, split in splits.items():
        manifest[name] = {}
        for part, pairs in split.parts.items():
            path = folder / name / f"{part}.jsonl"
            write_jsonl(path, (pair.to_row() for pair in pairs))
            manifest[name][part] = {"num_pairs": len(pairs), "sha256": sha256_file(path)}
    write_json(folder / "splits.json", manifest)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
