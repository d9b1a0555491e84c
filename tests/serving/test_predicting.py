"""The engine of `groundtune predict` over a random base, a LoRA and an index of four pairs; the numbers are a fake's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike_task import CALIBRATION, KNOWN, TASK, FakePredictor, calibrate, renderer

from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.serving.predicting import Asked, Config, PairPredictor, choose_system


@pytest.fixture
def config(pair_config: Config) -> Config:
    return pair_config


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
