"""Served numbers equal those of evaluate_regression, with the trained models of the embedded default."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.config import parse_section
from stages.core.jsonl import read_jsonl
from stages.core.workspace import ROOT, Workspace
from stages.generation.decoding import generate
from stages.generation.loading import load_tokenizer, resolve_base
from stages.regression.adapter_switch import AdapterSwitch
from stages.regression.answer import parse_answer
from stages.regression.evaluation_pairs import EvaluationPairs
from stages.regression.model_readings import Job, Setting, read_models
from stages.regression.pair_prompts import PairRenderer
from stages.serving.predicting import Asked, Config, PairPredictor
from stages.training.merging import merge_in_place

TOLERANCE = 0.005
PUBLISHED = ROOT / "reports/contracts/plots/predictions.csv"
NUM_SAMPLE = 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "models/contracts/calibration.json").exists(), reason="run `dvc repro evaluate_regression`"
    ),
]


@pytest.fixture(scope="module")
def config() -> Config:
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["predict"]
    return parse_section(Config, section, "predict")


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """The pairs of the test part."""
    rows = read_jsonl(ROOT / "data/contracts/pairs/by_contract/test.jsonl")
    return [Asked(row["a"], row["b"], row["id"]) for row in rows]


def adapter(recipe: str, seed: int) -> Path:
    return ROOT / f"models/contracts/regression/{recipe}/by_contract/seed-{seed}"


@pytest.mark.parametrize(
    ("changes", "system"),
    [
        ({"neighbours": False, "decoding": "expected"}, "hybrid_expected"),
        ({"neighbours": False, "recipe": "ce", "decoding": "greedy"}, "ce_greedy"),
    ],
)
def test_all_test_pairs_get_the_published_numbers(
    config: Config, asked: list[Asked], changes: dict[str, Any], system: str
) -> None:
    with open(PUBLISHED, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    published = {row["id"]: float(row[system]) for row in rows}
    assert len(published) == len(asked)
    predictor = PairPredictor(replace(config, **changes), Workspace())
    assert predictor.system.name == system
    predictor.system = replace(predictor.system, seed=13)  # the first: what predictions.csv shows
    for prediction in predictor.predict(asked):
        assert prediction.value == pytest.approx(published[prediction.asked.id], abs=TOLERANCE)


def test_pairs_that_come_one_by_one_from_many_threads_get_the_numbers_of_the_stage(
    config: Config, asked: list[Asked]
) -> None:
    """With neighbours in the prompt, which serving looks up and the stage has stored."""
    predictor = PairPredictor(replace(config, neighbours=True), Workspace())
    system = predictor.system
    data = EvaluationPairs.read(
        ROOT / "data/contracts/pairs",
        ROOT / "data/contracts/pair_index",
        "by_contract",
        system.num_neighbours,
        NUM_SAMPLE,
    )
    weights = resolve_base(Workspace(), config.model)
    longest = config.model.max_context_tokens - config.max_new_tokens
    data.render(PairRenderer(config.task, load_tokenizer(weights), longest), [0, system.num_neighbours])
    setting = Setting(weights, config.model, config.task, config.batch_size, config.max_new_tokens)
    (reading,) = read_models(setting, [Job("served", adapter(system.recipe, system.seed), data)])
    expected = getattr(reading.predictions["test", system.num_neighbours], system.decoding)
    with ThreadPoolExecutor(4) as pool:
        predictions = list(pool.map(lambda pair: predictor.predict([pair])[0], asked[:NUM_SAMPLE]))
    assert [one.value for one in predictions] == pytest.approx(expected.tolist(), abs=TOLERANCE)
    stored = [data.neighbours["test"][pair.id] for pair in asked[:NUM_SAMPLE]]
    assert [[near.id for near in one.neighbours] for one in predictions] == [
        [near.id for near in neighbours[: system.num_neighbours]] for neighbours in stored
    ]


def test_a_real_server_writes_the_json_that_evaluation_reads(
    config: Config,
    asked: list[Asked],
    tmp_path: Path,
    transformers_serve: Callable[[Path], tuple[str, subprocess.Popen[bytes]]],
) -> None:
    from openai import OpenAI

    weights = resolve_base(Workspace(), config.model)
    tokenizer = load_tokenizer(weights)
    model = AdapterSwitch(weights, config.model).use(adapter("hybrid", 15))
    renderer = PairRenderer(config.task, tokenizer)
    prompts = [renderer.prompt_ids(pair.a, pair.b).input_ids for pair in asked[:NUM_SAMPLE]]
    texts = generate(model, tokenizer, prompts, config.max_new_tokens, config.batch_size)
    expected = [parse_answer(config.task, text).value for text in texts]
    assert None not in expected and len(set(expected)) > NUM_SAMPLE // 2
    merged = tmp_path / "merged"
    merge_in_place(model).save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    url, _ = transformers_serve(merged)
    with OpenAI(base_url=url, api_key="none", timeout=60) as client:
        for pair, value in zip(asked, expected, strict=False):
            answer = client.chat.completions.create(
                model=str(merged),
                messages=renderer.messages(pair.a, pair.b),  # type: ignore[arg-type]
                temperature=0,
                max_tokens=config.max_new_tokens,
            )
            served = parse_answer(config.task, answer.choices[0].message.content or "")
            assert served.value == pytest.approx(value, abs=TOLERANCE)
