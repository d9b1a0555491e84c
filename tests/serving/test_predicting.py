"""The engine of `groundtune predict` over a random base, a LoRA and an index of four pairs; the numbers are a fake's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import build_pair_index
from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.schema import Embedder, Model
from stages.core.workspace import Workspace
from stages.generation.loading import load_tokenizer
from stages.regression.distribution import Predictions
from stages.regression.pair_prompts import PairRenderer
from stages.regression.pairs import Pair
from stages.regression.task import FileSource, PairPrompt, RegressionTask
from stages.serving.predicting import Asked, Config, PairPredictor, choose_system

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
MODEL = Model(name="random", kind="build", max_context_tokens=512)
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


@pytest.fixture
def config() -> Config:
    return Config(
        task=TASK,
        model=MODEL,
        embedder=EMBEDDER,
        batch_size=4,
        kind="hidden_states",
        max_length=64,
        max_prompt_tokens=0,
        max_new_tokens=32,
    )


@pytest.fixture
def alike(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("stages.regression.predictor.Predictor", FakePredictor)
    for split in ("by_contract", "by_pair"):
        for part in ("train", "validation", "test"):
            path = workspace.outputs / f"data/alike/pairs/{split}/{part}.jsonl"
            write_jsonl(path, (pair.to_row() for pair in KNOWN))
    settings = build_pair_index.Config(task=TASK, model=MODEL, embedder=EMBEDDER, top_k=2, max_length=64)
    build_pair_index.run(settings, workspace)
    for recipe in ("ce", "hybrid"):
        adapter = workspace.outputs / f"models/alike/regression/{recipe}/by_contract/seed-2"
        shutil.copytree(workspace.outputs / "models/world/rag_lora", adapter)
        (adapter / "adapter.json").write_text(json.dumps({"prompt_hash": renderer(workspace).hash}))
    calibrate(workspace, CALIBRATION)
    return workspace


def renderer(workspace: Workspace) -> PairRenderer:
    return PairRenderer(TASK, load_tokenizer(workspace.read("models/base/random")))


def calibrate(workspace: Workspace, calibration: dict[str, Any]) -> None:
    (workspace.outputs / "models/alike/calibration.json").write_text(json.dumps(calibration))


def test_the_prompt_holds_the_nearest_known_pairs(config: Config, alike: Workspace) -> None:
    asked = [Asked("text 1", "text 10 "), Asked("text 40", "text 4")]
    predictions = PairPredictor(config, alike).predict(asked)
    assert len(predictions) == len(FakePredictor.seen) == 2
    for pair, prediction, ids in zip(asked, predictions, FakePredictor.seen, strict=True):
        assert len(prediction.neighbours) == 2
        assert ids == renderer(alike).prompt_ids(pair.a, pair.b, prediction.neighbours).input_ids
        assert prediction.neighbours[0].distance <= prediction.neighbours[1].distance
    for prediction, known in zip(predictions, (KNOWN[0], KNOWN[3]), strict=True):
        assert known.id not in [near.id for near in prediction.neighbours]  # the pair itself, and its mirror image


def test_the_number_comes_with_its_calibrated_interval(config: Config, alike: Workspace) -> None:
    (prediction,) = PairPredictor(config, alike).predict([Asked("x", "y", "mine")])
    assert (prediction.value, prediction.low, prediction.high, prediction.level) == (4.0, 1.5, 4.5, 0.5)
    assert prediction.to_row() == {
        "id": "mine",
        "a": "x",
        "b": "y",
        "value": 4.0,
        "low": 1.5,  # the quantiles .25 and .75 are 2 and 4, moved by .5
        "high": 4.5,
        "level": 0.5,
        "system": "ce_expected_neighbours",
        "num_shortened": 0,
        "neighbours": [
            {"id": near.id, "a": near.a, "b": near.b, "value": near.value, "distance": near.distance}
            for near in prediction.neighbours
        ],
    }


def test_without_neighbours_no_index_is_read(config: Config, alike: Workspace) -> None:
    shutil.rmtree(alike.outputs / "data")
    (prediction,) = PairPredictor(replace(config, neighbours=False), alike).predict([Asked("x", "y")])
    assert (prediction.system, prediction.neighbours) == ("ce_expected", [])
    assert FakePredictor.seen == [renderer(alike).prompt_ids("x", "y").input_ids]


def test_a_greedy_number_has_an_interval_around_it(config: Config, alike: Workspace) -> None:
    (prediction,) = PairPredictor(replace(config, neighbours=False, decoding="greedy"), alike).predict(
        [Asked("x", "y")]
    )
    assert (prediction.value, prediction.low, prediction.high) == (9.0, 7.0, 10.0)  # 11 is out of range


def test_a_head_is_read_where_there_is_one(config: Config, alike: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = PairPredictor(replace(config, recipe="hybrid"), alike)
    with pytest.raises(DataError, match="has no head"):
        predictor.predict([Asked("x", "y")])
    monkeypatch.setattr(FakePredictor, "head", np.array([5.0]))
    assert predictor.predict([Asked("x", "y")])[0].value == 5.0


def test_a_long_text_is_shortened_and_counted(config: Config, alike: Workspace) -> None:
    settings = replace(config, neighbours=False, max_prompt_tokens=100)
    (prediction,) = PairPredictor(settings, alike).predict([Asked("word " * 100, "y")])
    assert prediction.num_shortened == 1
    assert len(FakePredictor.seen[0]) <= 100


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "ce_expected_neighbours"),
        ({"neighbours": True}, "ce_expected_neighbours"),
        ({"neighbours": False}, "ce_expected"),
        ({"neighbours": False, "decoding": "greedy"}, "ce_greedy"),
        ({"recipe": "hybrid"}, "hybrid_head"),  # the only one of that recipe
        ({"decoding": "greedy"}, "ce_greedy"),
    ],
)
def test_the_best_system_but_for_what_is_asked_for(config: Config, changes: dict[str, Any], name: str) -> None:
    assert choose_system(CALIBRATION, replace(config, **changes)).name == name


def test_a_system_that_was_not_evaluated_is_refused(config: Config) -> None:
    message = r"evaluated with \{'recipe': 'hybrid', 'neighbours': True\}; there are: ce_expected, ce_expected_neigh"
    with pytest.raises(DataError, match=message):
        choose_system(CALIBRATION, replace(config, recipe="hybrid", neighbours=True))
    with pytest.raises(DataError, match="nothing was trained"):
        choose_system({**CALIBRATION, "best": ""}, config)


def test_a_calibration_of_another_model_is_refused(config: Config, alike: Workspace) -> None:
    calibrate(alike, {**CALIBRATION, "model": "tiny"})
    with pytest.raises(DataError, match="of the model tiny, but the one configured is random"):
        PairPredictor(config, alike)


def test_an_index_of_another_embedder_is_refused(config: Config, alike: Workspace) -> None:
    with pytest.raises(DataError, match="built with another embedder"):
        PairPredictor(replace(config, max_length=32), alike).predict([Asked("x", "y")])


def test_an_adapter_trained_with_another_prompt_is_refused(config: Config, alike: Workspace) -> None:
    other = replace(config, neighbours=False, task=replace(TASK, json_field="other"))
    with pytest.raises(DataError, match="trained with prompt"):
        PairPredictor(other, alike).predict([Asked("x", "y")])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(" ", "y"), "empty_text"),
        (Asked("x", "X "), "pair_with_itself"),
        (Asked("x", "", "row 7"), "row 7: empty_text"),
    ],
)
def test_a_pair_without_a_number_is_refused(config: Config, alike: Workspace, asked: Asked, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PairPredictor(config, alike).predict([asked])


def test_what_is_missing_is_named(config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"models/alike/calibration\.json: no such file"):
        PairPredictor(config, Workspace(tmp_path / "nothing", tmp_path / "nothing"))
