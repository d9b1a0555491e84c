"""A regression task of four known pairs, for tests: its settings, its calibration, and a predictor of made-up numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.core.schema import Embedder
from stages.core.workspace import Workspace
from stages.generation.loading import load_tokenizer
from stages.regression.distribution import Predictions
from stages.regression.pair_prompts import PairRenderer
from stages.regression.pairs import Pair
from stages.regression.task import FileSource, PairPrompt, RegressionTask

TASK = RegressionTask(
    name="alike",
    raw="raw",
    json_field="likeness",
    low=0.0,
    high=10.0,
    decimals=1,
    tolerance=0.5,
    prompt=PairPrompt("Compare.", "Compare.\n{neighbours}", "{a} {b} {value}", "{a} {b}"),
    source="files",
    files=FileSource({"all": "x"}, {}),
)
EMBEDDER = Embedder(name="none", package="none", dimension=8, max_tokens=8)
KNOWN = [Pair(f"{n}--{n}0", f"{n}", f"{n}0", f"text {n}", f"text {n}0", float(n)) for n in range(1, 5)]
QUANTILES = {"kind": "quantiles", "level": 0.5, "margin": 0.5, "low": 0.0, "high": 10.0, "n": 9}
POINT = {**QUANTILES, "kind": "point", "margin": 2.0}


def system(recipe: str, decoding: str, num_neighbours: int, interval: dict[str, Any] = POINT) -> dict[str, Any]:
    settings = {"recipe": recipe, "decoding": decoding, "num_neighbours": num_neighbours}
    return {**settings, "seed": 2, "interval": interval}


SYSTEMS = {
    "ce_greedy": system("ce", "greedy", 0),
    "ce_expected": system("ce", "expected", 0, QUANTILES),
    "ce_expected_neighbours": system("ce", "expected", 2, QUANTILES),
    "hybrid_head": system("hybrid", "head", 0),
}
CALIBRATION = {
    "task": "alike",
    "model": "random",
    "split": "by_contract",
    "level": 0.5,
    "best": "ce_expected_neighbours",
    "systems": SYSTEMS,
}


class FakePredictor:
    """Says that every value is one of 2, 4, 6; keeps the prompts."""

    seen: list[list[int]] = []
    head: Any = None

    def __init__(self, model: Any, tokenizer: Any, task: RegressionTask, batch_size: int) -> None:
        assert hasattr(model, "peft_config")

    def predict(self, ids: Sequence[str], prompts: Sequence[list[int]]) -> Predictions:
        FakePredictor.seen = list(prompts)
        values, rows = np.array([2.0, 4.0, 6.0]), np.tile([0.25, 0.5, 0.25], (len(ids), 1))
        return Predictions(list(ids), values, rows, np.full(len(ids), 9.0), FakePredictor.head)


def renderer(workspace: Workspace) -> PairRenderer:
    return PairRenderer(TASK, load_tokenizer(workspace.read("models/base/random")))


def calibrate(workspace: Workspace, calibration: dict[str, Any]) -> None:
    (workspace.outputs / "models/alike/calibration.json").write_text(json.dumps(calibration))
