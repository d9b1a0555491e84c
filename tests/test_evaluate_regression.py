"""The whole stage on made-up pairs and models with random weights: what comes out, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import byte_tokenizer, save_llama, write_base_manifest

from stages.core.atomic import write_json, write_text
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import write_jsonl
from stages.core.schema import Model
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.evaluate_regression import Config, run
from stages.evaluation.regression_conformal import Calibration
from stages.generation.loading import write_adapter_note
from stages.regression.distribution import Predictions
from stages.regression.pair_prompts import PairRenderer
from stages.regression.pairs import Pair
from stages.regression.task import PairPrompt, RegressionTask, SqlSource

TASK = RegressionTask(
    name="t", raw="raw", json_field="n", low=0.0, high=1.0, decimals=1, tolerance=0.2, source="sql",
    sql=SqlSource(url="sqlite:///t.sqlite"),
    prompt=PairPrompt(
        system="How alike?", system_with_neighbours="Known:\n{neighbours}", neighbour="{a}/{b}={value}", pair="{a}/{b}"
    ),
)  # fmt: skip
SPLITS = ("by_contract", "by_pair")
RECIPES = ("ce", "hybrid")
TRAINED = {"by_contract": (1, 2, 3), "by_pair": (1,)}  # seeds
SIZES = {"train": 8, "validation": 6, "test": 5}  # contracts, all of whose pairs are taken
NUM_TEST = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with everything that the stage reads."""
    root = tmp_path_factory.mktemp("repository")
    for split in SPLITS:
        write_pairs(root, split)
    write_json(root / "data/t/pair_index/manifest.json", {"embedder_fingerprint": "x", "top_k": 2, "dimension": 4})
    write_models(root, byte_tokenizer())
    for recipe in RECIPES:
        write_text(
            root / f"reports/t/train_regression/{recipe}/curve.csv", "step,train_loss,eval_token\n1,3,3\n2,2,2\n"
        )
    return root


def write_pairs(root: Path, split: str) -> None:
    """Values depend on the contracts' numbers, and the first half of the vectors tells them."""
    rng, first = np.random.default_rng(len(split)), 0
    train: list[Pair] = []
    for part, num_contracts in SIZES.items():
        pairs = []
        for a, b in itertools.combinations(range(first, first + num_contracts), 2):
            value = round(0.5 + 0.5 * float(np.sin(a + 2 * b)), 6)
            ids = (f"c{a:02}", f"c{b:02}")
            pairs.append(Pair("--".join(ids), *ids, f"Island {a}", f"Mill {b}", value, true_value=value))
        first += num_contracts
        train = train or pairs
        values = np.array([[pair.value] for pair in pairs])
        vectors = np.hstack([values, values**2, rng.normal(size=(len(pairs), 2))]).astype(np.float32)
        index = root / "data/t/pair_index" / split
        write_jsonl(root / f"data/t/pairs/{split}/{part}.jsonl", (pair.to_row() for pair in pairs))
        near = [{"id": pair.id, "neighbours": nearest(pair, train)} for pair in pairs]
        write_jsonl(index / f"neighbours/{part}.jsonl", near)
        np.save(index / f"{part}.npy", vectors)


def nearest(pair: Pair, train: Sequence[Pair]) -> list[dict[str, Any]]:
    others = sorted((abs(other.value - pair.value), other.id) for other in train if other.id != pair.id)
    return [{"id": identifier, "distance": distance} for distance, identifier in others[:2]]


def write_models(root: Path, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    base = save_llama(root / "models/base/b", tokenizer)
    write_base_manifest(base)
    note = {"base_sha256": "", "prompt_hash": PairRenderer(TASK, tokenizer).hash}
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    for recipe, split in itertools.product(RECIPES, SPLITS):
        for seed in TRAINED[split]:
            folder = root / f"models/t/regression/{recipe}/{split}/seed-{seed}"
            get_peft_model(LlamaForCausalLM.from_pretrained(base), lora).save_pretrained(str(folder))
            write_adapter_note(folder, note)


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "task": TASK,
        "model": Model(name="b", kind="build", max_context_tokens=256),
        "seed": 1,
        "recipes": list(RECIPES),
        "splits": list(SPLITS),
        "neighbours": 2,
        "tolerances": [0.2, 0.5],
        "level": 0.8,
        "batch_size": 8,
        "num_unconstrained": 4,
        "max_new_tokens": 12,
        "num_resamples": 100,
        "num_threads": 1,
    }
    return Config(**{**values, **changes})


@pytest.fixture(scope="module")
def evaluated(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    outputs = tmp_path_factory.mktemp("outputs")
    return run(config(), Workspace(made, outputs)), outputs


def test_every_system_has_every_number(evaluated: tuple[dict[str, Any], Path]) -> None:
    metrics, outputs = evaluated
    assert json.loads((outputs / "reports/t/metrics.json").read_text()) == metrics
    models = [f"{m}_{d}{s}" for m in ("base", *RECIPES) for d in ("greedy", "expected") for s in ("", "_neighbours")]
    found = metrics["regression"]["t"]
    assert set(found) == {"constant", "nearest", "ridge", "ceiling", *models}
    for system in found.values():
        assert set(system) == set(SPLITS)
        for scores in system.values():
            assert set(scores) == {"mae", "rmse", "r2", "pearson", "spearman", "acc_at_0_2", "acc_at_0_5"}
            assert {score["n"] for score in scores.values()} == {NUM_TEST}
    assert found["ceiling"]["by_contract"]["mae"]["value"] == 0.0
    assert found["ridge"]["by_contract"]["r2"]["value"] > 0.9  # the vectors tell the value
    assert found["constant"]["by_contract"]["r2"]["value"] <= 0.0
    assert set(metrics["parse_share"]) == {"base", *RECIPES}
    assert set(metrics["calibration"]) == set(found) - {"ceiling"}
    assert metrics["best"]["by_contract"] in models


def test_what_is_written(evaluated: tuple[dict[str, Any], Path]) -> None:
    metrics, outputs = evaluated
    report = outputs / "reports/t"
    assert {f"{name}.png" for name in ("scatter", "tolerance", "calibration", "loss_parts")} == set(
        sha256_files(report / "figures")
    )
    assert set(sha256_files(report / "plots")) == {"regression.csv", "tolerance.csv", "predictions.csv"}
    assert "# Numbers for pairs: task t, base b" in (report / "report.md").read_text()
    served = json.loads((outputs / "models/t/calibration.json").read_text())
    assert served["best"] == metrics["best"]["by_contract"]
    for entry in served["systems"].values():
        assert entry["seed"] in TRAINED["by_contract"] and entry["recipe"] in RECIPES
        assert Calibration.from_json(entry["interval"]).level == 0.8


def test_rerun_gives_the_same_bytes(made: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    run(config(), Workspace(made, tmp_path))
    assert sha256_files(tmp_path) == sha256_files(evaluated[1])


def test_batches_change_nothing(made: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """Also the base model's numbers, which are the same whatever adapter came and went."""
    metrics = run(config(batch_size=1), Workspace(made, tmp_path))
    for system, splits in evaluated[0]["regression"]["t"].items():
        for split, scores in splits.items():
            assert metrics["regression"]["t"][system][split]["mae"]["value"] == pytest.approx(
                scores["mae"]["value"], abs=1e-4
            )


@pytest.mark.slow
def test_workers_change_nothing(made: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    run(config(num_workers=2), Workspace(made, tmp_path))
    assert sha256_files(tmp_path) == sha256_files(evaluated[1])


def test_a_quick_look(made: Path, tmp_path: Path) -> None:
    metrics = run(config(limit=1, recipes=["ce"], splits=["by_contract"], neighbours=0), Workspace(made, tmp_path))
    found = metrics["regression"]["t"]
    assert set(found) == {"constant", "ridge", "ceiling", "base_greedy", "base_expected", "ce_greedy", "ce_expected"}
    assert found["ce_expected"]["by_contract"]["mae"]["n"] == 1
    assert found["ce_expected"]["by_contract"]["r2"]["value"] is None


class FakeSwitch:
    """The adapter's folder instead of a model."""

    def __init__(self, weights: Path, model: Model) -> None:
        self.weights = weights

    def use(self, adapter: Path | None) -> Path:
        return adapter or self.weights


def fake_predictor(truths: dict[str, float]) -> Any:
    """ce errs by .2, hybrid by .1 times its seed (one value off), half as much with neighbours; the base says 0."""

    class FakePredictor:
        def __init__(self, model: Path, tokenizer: Any, task: RegressionTask, batch_size: int) -> None:
            self.folder = model

        def predict(self, ids: Sequence[str], prompts: Sequence[Sequence[int]], *_: str) -> Predictions:
            values = np.linspace(0, 1, 11)
            truth = np.array([truths[identifier] for identifier in ids])
            error = {"ce": 0.2, "hybrid": 0.1}.get(self.folder.parts[-3], 0.0)
            if error:
                error *= int(self.folder.name.removeprefix("seed-")) if error == 0.1 else 1
                error *= 0.5 if max(map(len, prompts)) > 50 else 1  # neighbours in the prompt
                means = np.where(truth > 0.5, truth - error, truth + error)
            else:
                means = np.zeros_like(truth)
            lower = np.clip((means * 10).astype(int), 0, 9)
            share = means * 10 - lower
            probabilities = np.zeros((len(ids), 11))
            probabilities[np.arange(len(ids)), lower] = 1 - share
            probabilities[np.arange(len(ids)), lower + 1] = share
            return Predictions(list(ids), values, probabilities, means.round(1), np.full(len(ids), 0.5))

    return FakePredictor


def test_each_number_comes_from_its_own_adapter(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths: dict[str, float] = {}
    for path in (made / "data/t/pairs").rglob("*.jsonl"):
        rows = map(json.loads, path.read_text().splitlines())
        truths |= {row["id"]: row["value"] for row in rows}
    texts = ['{"n": 0.5}', "no", '{"n": 0.5} it is', '{"n": 7}']
    monkeypatch.setattr("stages.regression.model_readings.AdapterSwitch", FakeSwitch)
    monkeypatch.setattr("stages.regression.model_readings.Predictor", fake_predictor(truths))
    monkeypatch.setattr("stages.regression.model_readings.generate", lambda *given: texts[: len(given[2])])
    metrics = run(config(), Workspace(made, tmp_path))
    found = {name: splits["by_contract"]["mae"]["value"] for name, splits in metrics["regression"]["t"].items()}
    assert found["ce_expected"] == pytest.approx(0.2)
    assert found["hybrid_expected"] == pytest.approx(0.2)  # the mean of .1, .2, .3
    assert found["ce_expected_neighbours"] == pytest.approx(0.1)
    wanted = np.array([truths[identifier] for identifier in ids_of_test_pairs(made)])
    assert found["hybrid_head"] == pytest.approx(np.mean(abs(wanted - 0.5)), abs=1e-6)
    assert found["base_expected"] == pytest.approx(np.mean(wanted), abs=1e-6)
    by_pair = {name: splits["by_pair"]["mae"]["value"] for name, splits in metrics["regression"]["t"].items()}
    assert by_pair["hybrid_expected"] == pytest.approx(0.1)  # seed 1 alone
    assert metrics["best"] == {"by_contract": "ce_expected_neighbours", "by_pair": "hybrid_expected_neighbours"}
    assert metrics["parse_share"]["ce"]["value"] == 0.5
    served = json.loads((tmp_path / "models/t/calibration.json").read_text())["systems"]
    assert served["hybrid_expected"]["seed"] == 1
    assert served["hybrid_expected"]["num_neighbours"] == 0
    assert served["hybrid_expected_neighbours"]["num_neighbours"] == 2


def ids_of_test_pairs(made: Path) -> list[str]:
    lines = (made / "data/t/pairs/by_contract/test.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_an_adapter_of_another_prompt_is_refused(copy: Path) -> None:
    write_adapter_note(copy / "models/t/regression/ce/by_pair/seed-1", {"base_sha256": "", "prompt_hash": "other"})
    with pytest.raises(DataError, match="seed-1: trained with prompt other"):
        run(config(), Workspace(copy, copy))


def test_a_recipe_that_was_not_trained_is_refused_by_name(copy: Path) -> None:
    with pytest.raises(DataError, match="models/t/regression/none"):
        run(config(recipes=["ce", "none"]), Workspace(copy, copy))
    shutil.rmtree(copy / "models/t/regression/hybrid/by_contract")
    with pytest.raises(DataError, match="hybrid/by_contract: no trained seed; run `dvc repro train_regression`"):
        run(config(), Workspace(copy, copy))


def test_an_index_of_other_pairs_is_refused(copy: Path) -> None:
    vectors = copy / "data/t/pair_index/by_contract/test.npy"
    np.save(vectors, np.load(vectors)[:-1])
    with pytest.raises(DataError, match="built from other pairs"):
        run(config(), Workspace(copy, copy))


def test_an_empty_part_is_refused(copy: Path) -> None:
    write_text(copy / "data/t/pairs/by_pair/test.jsonl", "")
    with pytest.raises(DataError, match=r"by_pair/test.jsonl: no pair to evaluate with"):
        run(config(), Workspace(copy, copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": ["by_luck"]}, "splits"),
        ({"splits": []}, "splits"),
        ({"level": 1.0}, "level"),
        ({"limit": -1}, "limit"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_resamples": 10}, "num_resamples"),
        ({"recipes": ["base"]}, "recipes"),
        ({"targets": {"acc_at_0_3": 0.5}}, "targets"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_the_shipped_section_is_valid() -> None:
    section = yaml.safe_load((CONF / "evaluate_regression/default.yaml").read_text())
    shipped = config()
    section |= {"task": shipped.task, "model": shipped.model, "seed": 1, "neighbours": 2}  # interpolated
    assert parse_section(Config, section, "evaluate_regression").recipes == ["ce", "hybrid"]
    with pytest.raises(ConfigError, match=r"evaluate_regression\.top_k: unknown key"):
        parse_section(Config, {**section, "top_k": 3}, "evaluate_regression")
