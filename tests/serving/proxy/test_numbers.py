"""Numbers for pairs over HTTP, and their model replaced while the server runs."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import asdict, replace
from typing import Any

import pytest
from alike_task import CALIBRATION, SYSTEMS, calibrate

from stages.serving.predicting import PairPredictor

pytestmark = pytest.mark.anyio

PAIRS = [{"a": "text 1", "b": "text 10 ", "id": "first"}, {"a": "x", "b": "y"}]


def wider(margin: float) -> dict[str, Any]:
    """The calibration with other intervals."""
    best = SYSTEMS["ce_expected_neighbours"]
    interval = {**best["interval"], "margin": margin}
    return {**CALIBRATION, "systems": {**SYSTEMS, "ce_expected_neighbours": {**best, "interval": interval}}}


async def predict(proxy: Any, *pairs: dict[str, str]) -> list[dict[str, Any]]:
    response = await proxy.client.post("/v1/predict", json={"pairs": pairs or PAIRS})
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


async def test_numbers_are_those_of_the_predictor(run_proxy: Any, pair_config: Any, alike: Any) -> None:
    async with run_proxy(predict_section=asdict(pair_config)) as proxy:
        first, second = await predict(proxy)
        asked = [proxy.client.post("/v1/predict", json={"pairs": [pair]}) for pair in (PAIRS[0], {"a": "x", "b": "X"})]
        alone, same = await asyncio.gather(*asked)
        bad = [{"pairs": []}, {"pairs": [{"a": "x"}]}, {"pairs": PAIRS * 200}, {"pairs": [{"a": "a\x00", "b": "y"}]}]
        refused = [await proxy.client.post("/v1/predict", json=body) for body in bad]
    assert (first["id"], first["value"], first["low"], first["high"]) == ("first", 4.0, 1.5, 4.5)
    assert len(first["neighbours"]) == len(second["neighbours"]) == 2
    assert alone.json() == {"task": "alike", "predictions": [first]}
    assert (same.status_code, same.json()["error"]["code"]) == (400, "pair_with_itself")
    assert [response.status_code for response in refused] == [400] * 4
    assert refused[-1].json()["error"]["param"] == "pairs[0].a"


async def test_without_a_task_there_are_none(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        response = await proxy.client.post("/v1/predict", json={"pairs": PAIRS})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_task")


async def test_a_task_that_is_evaluated_later(run_proxy: Any, pair_config: Any, alike: Any) -> None:
    calibration = alike.outputs / "models/alike/calibration.json"
    calibration.rename(calibration.with_suffix(".later"))
    async with run_proxy(predict_section=asdict(pair_config)) as proxy:
        response = await proxy.client.post("/v1/predict", json={"pairs": PAIRS})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "no_task")
        calibration.with_suffix(".later").rename(calibration)
        assert [row["low"] for row in await predict(proxy)] == [1.5, 1.5]


async def test_a_newer_calibration_and_model_are_taken(run_proxy: Any, pair_config: Any, alike: Any) -> None:
    adapter = alike.outputs / "models/alike/regression/ce/by_contract/seed-2"
    async with run_proxy(predict_section=asdict(pair_config)) as proxy:
        assert [row["low"] for row in await predict(proxy)] == [1.5, 1.5]
        first = proxy.service.numbers.predictor
        await predict(proxy)
        assert proxy.service.numbers.predictor is first  # nothing has changed
        calibrate(alike, wider(1.0))
        assert [row["low"] for row in await predict(proxy)] == [1.0, 1.0]
        second = proxy.service.numbers.predictor
        weights = adapter / "adapter_model.safetensors"
        shutil.copyfile(weights, adapter / "newer")
        (adapter / "newer").replace(weights)
        await predict(proxy)
        assert len({first, second, proxy.service.numbers.predictor}) == 3


async def test_a_broken_newer_version_leaves_the_older_one(run_proxy: Any, pair_config: Any, alike: Any) -> None:
    note = alike.outputs / "models/alike/regression/ce/by_contract/seed-2/adapter.json"
    async with run_proxy(predict_section=asdict(pair_config)) as proxy:
        before = await predict(proxy)
        good = note.read_text()
        note.write_text("{")
        for _ in range(2):
            assert await predict(proxy) == before
        assert (await proxy.client.get("/stats")).json()["num_reload_errors"] == 1
        note.write_text(good)
        assert await predict(proxy) == before
        assert (await proxy.client.get("/stats")).json()["num_reload_errors"] == 1


def test_only_what_is_used_is_looked_at(pair_config: Any, alike: Any) -> None:
    """Without neighbours no index counts; and another recipe's adapter never does."""
    assert PairPredictor(replace(pair_config, neighbours=False), alike).paths == [
        "models/alike/calibration.json",
        "models/alike/regression/ce/by_contract/seed-2",
        "models/base/random",
    ]
