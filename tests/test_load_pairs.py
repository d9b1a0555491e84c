"""load_pairs from files, and make_contracts with it: sizes, bytes, refusals, and SICK where it is at hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages import load_pairs, make_contracts
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.fingerprint import sha256_file, sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.stage import CONF
from stages.core.workspace import Workspace
from stages.regression.pairs import Pair

PARTS = ("train", "validation", "test")


def composed(task: str, overrides: dict[str, Any] | None = None) -> Any:
    """The shipped config of a task, without the other stages' sections."""
    config = OmegaConf.create({"seed": 13, "regression": {}})
    for stage in ("make_contracts", "load_pairs"):
        config[stage] = OmegaConf.load(CONF / stage / "default.yaml")
    config = OmegaConf.merge(config, OmegaConf.load(CONF / "regression" / f"{task}.yaml"))
    for key, value in (overrides or {}).items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def load(config: Any, workspace: Workspace) -> dict[str, Any]:
    return load_pairs.run(parse_section(load_pairs.Config, config.load_pairs, "load_pairs"), workspace)


def make(config: Any, workspace: Workspace) -> dict[str, Any]:
    return make_contracts.run(parse_section(make_contracts.Config, config.make_contracts, "make_contracts"), workspace)


def read(workspace: Workspace, task: str, split: str, part: str) -> list[Pair]:
    rows = read_jsonl(workspace.outputs / f"data/{task}/pairs/{split}/{part}.jsonl")
    return [Pair.from_row(row) for row in rows]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    workspace = Workspace(folder, folder)
    config = composed("contracts")
    return workspace, make(config, workspace), load(config, workspace)


def test_the_demo_is_large_enough(demo: Any) -> None:
    _, _, metrics = demo
    for split in ("by_contract", "by_pair"):
        assert metrics["splits"][split]["train"]["num_pairs"] >= 2100
        assert metrics["splits"][split]["validation"]["num_pairs"] >= 300
        assert metrics["splits"][split]["test"]["num_pairs"] >= 300
        assert metrics["splits"][split]["train"]["share"] == pytest.approx(0.7, abs=0.05)


def test_every_flaw_of_the_demo_is_found(demo: Any) -> None:
    _, made, metrics = demo
    assert metrics["contracts"]["num_read"] == made["num_contracts"] + made["num_flawed_contracts"]
    assert metrics["contracts"]["rejected"] == {"constant_series": 1, "empty_text": 1, "too_few_points": 2}
    assert metrics["price_rows"]["num_read"] == made["num_prices"] + made["num_flawed_prices"]
    assert set(metrics["price_rows"]["rejected"]) == {
        "broken_time",
        "conflicting_price",
        "duplicate_time",
        "not_a_number",
        "unknown_contract",
    }
    assert set(metrics["pairs"]["rejected"]) >= {"conflicting_values", "duplicate", "no_shared_points"}


def test_the_noise_ceiling_of_the_demo_is_above_what_must_be_reached(demo: Any) -> None:
    workspace, _, _ = demo
    for split in ("by_contract", "by_pair"):
        test = read(workspace, "contracts", split, "test")
        values = [pair.value for pair in test]
        errors = [pair.value - pair.true_value for pair in test if pair.true_value is not None]
        assert len(errors) == len(test)
        mean = sum(values) / len(values)
        assert 1 - sum(e * e for e in errors) / sum((v - mean) ** 2 for v in values) > 0.93
        assert sum(abs(e) for e in errors) / len(errors) < 0.06
        assert sum(abs(e) <= 0.2 for e in errors) / len(errors) > 0.95
        assert sum(abs(v - mean) <= 0.2 for v in values) / len(values) < 0.5  # and the mean alone is no answer


def test_no_test_contract_was_ever_seen(demo: Any) -> None:
    workspace, _, _ = demo
    seen = {part: set[str]() for part in PARTS}
    for part in PARTS:
        for pair in read(workspace, "contracts", "by_contract", part):
            seen[part] |= {pair.a_id, pair.b_id, pair.a, pair.b}
    assert not seen["train"] & seen["test"] | seen["train"] & seen["validation"] | seen["validation"] & seen["test"]


def test_a_rerun_gives_the_same_bytes(demo: Any, tmp_path: Path) -> None:
    workspace, _, _ = demo
    again = Workspace(tmp_path, tmp_path)
    config = composed("contracts")
    make(config, again)
    load(config, again)
    assert sha256_files(again.outputs) == sha256_files(workspace.outputs)


def test_the_manifest_names_every_file(demo: Any) -> None:
    workspace, _, metrics = demo
    folder = workspace.outputs / "data/contracts/pairs"
    manifest = json.loads((folder / "splits.json").read_text())
    for split in ("by_contract", "by_pair"):
        for part in PARTS:
            assert manifest[split][part]["sha256"] == sha256_file(folder / split / f"{part}.jsonl")
            assert manifest[split][part]["num_pairs"] == metrics["splits"][split][part]["num_pairs"]


@pytest.mark.parametrize(
    "stage, key, value",
    [
        ("load_pairs", "limit", -1),
        ("load_pairs", "max_pairs.test", -1),
        ("make_contracts", "num_contracts", 9),
        ("make_contracts", "num_contracts", 2251),  # there are no more names
    ],
)
def test_counts_that_cannot_be_are_refused_by_name(tmp_path: Path, stage: str, key: str, value: int) -> None:
    config = composed("contracts", {f"{stage}.{key}": value})
    with pytest.raises(ConfigError, match=key.split(".")[0]):
        {"load_pairs": load, "make_contracts": make}[stage](config, Workspace(tmp_path, tmp_path))


def test_a_limit_gives_a_quick_look(demo: Any, tmp_path: Path) -> None:
    workspace, _, _ = demo
    metrics = load(composed("contracts", {"load_pairs.limit": 10}), Workspace(workspace.outputs, tmp_path))
    sizes = [metrics["splits"][split][part]["num_pairs"] for split in ("by_contract", "by_pair") for part in PARTS]
    assert sizes == [10] * 6


# ---- files ---------------------------------------------------------------------------------------------------------


def files_config(tmp_path: Path, files: dict[str, str], **overrides: Any) -> Any:
    values = {"regression.name": "alike", "regression.raw": str(tmp_path), "regression.split": "seeded"}
    config = composed("sick", {**values, **overrides})
    config.regression.files.files = files
    return config


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(start)
    return [
        {"sentence1": f"first {start + n}", "sentence2": f"second {start + n}", "score": draw.randint(10, 50) / 10}
        for n in range(count)
    ]


def test_one_file_without_a_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", rows(300))
    metrics = load(files_config(tmp_path, {"all": "all.jsonl"}), Workspace(tmp_path, tmp_path / "out"))
    sizes = metrics["splits"]["by_pair"]
    assert sum(sizes[part]["num_pairs"] for part in PARTS) == 300
    assert metrics["splits"]["by_contract"]["num_mixed_dropped"] == 0


def test_a_csv_with_other_names(tmp_path: Path) -> None:
    lines = ["x;y;how;mark"] + [f"left {n};right {n};k;{1 + n % 5}" for n in range(200)]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    config = files_config(tmp_path, {"all": "p.csv"})
    config.regression.files.fields = {"a": "x", "b": "y", "category": "how", "value": "mark"}
    load(config, Workspace(tmp_path, tmp_path / "out"))
    pair = read(Workspace(tmp_path, tmp_path / "out"), "alike", "by_pair", "train")[0]
    assert pair.a.startswith("left")
    assert (pair.category, pair.part) == ("k", "")
    assert 1 <= pair.value <= 5


def test_bad_records_are_counted_and_placed(tmp_path: Path) -> None:
    bad = [
        '{"sentence1": "a", "sentence2": "b", "score": "n/a"}',
        '{"sentence1": "a", "sentence2": "b", "score": NaN}',
        '{"sentence1": "a", "sentence2": "b", "score": 5.1}',
        '{"sentence1": "", "sentence2": "b", "score": 3}',
        '{"sentence1": "a", "sentence2": "A ", "score": 3}',
        '{"sentence1": ["a"], "sentence2": "b", "score": 3}',
        '{"sentence1": "a", ',
    ]
    good = [json.dumps(row) for row in rows(100)]
    (tmp_path / "all.jsonl").write_text("\n".join([*good, *bad]))
    workspace = Workspace(tmp_path, tmp_path / "out")
    metrics = load(files_config(tmp_path, {"all": "all.jsonl"}), workspace)
    assert metrics["pairs"]["rejected"] == {
        "broken_record": 2,
        "empty_text": 1,
        "not_a_number": 2,
        "out_of_range": 1,
        "pair_with_itself": 1,
    }
    origins = {row["origin"] for row in read_jsonl(workspace.outputs / "data/alike/pairs/rejected.jsonl")}
    assert origins == {f"all.jsonl:{n}" for n in range(101, 108)}


def test_conflicting_values_are_rejected_or_the_first_is_kept(tmp_path: Path) -> None:
    mirrored = [{"sentence1": r["sentence2"], "sentence2": r["sentence1"], "score": 1.0} for r in rows(1)]
    first = {**rows(1)[0], "score": 4.0}
    write_jsonl(tmp_path / "all.jsonl", [first, *mirrored, *rows(100, start=1)])
    for policy, num_kept in (("reject", 100), ("first", 101)):
        config = files_config(tmp_path, {"all": "all.jsonl"}, **{"load_pairs.conflicting_values": policy})
        metrics = load(config, Workspace(tmp_path, tmp_path / policy))
        assert metrics["pairs"]["num_kept"] == num_kept


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"files": {"all": "missing.jsonl"}}, DataError, "missing.jsonl: no such file"),
        ({"fields": {"a": "sentence1", "b": "sentence2"}}, ConfigError, "fields.value is missing"),
        ({"fields": {"a": "s1", "b": "sentence2", "value": "score"}}, ConfigError, r"no field 's1' \(files.fields.a\)"),
        ({"fields": {"a": "sentence1", "b": "sentence2", "value": "score", "weight": "w"}}, ConfigError, "weight"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: Any, error: type[Exception], message: str) -> None:
    write_jsonl(tmp_path / "all.jsonl", rows(100))
    config = files_config(tmp_path, {"all": "all.jsonl"})
    for key, value in change.items():
        config.regression.files[key] = value
    with pytest.raises(error, match=message):
        load(config, Workspace(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out" / "data").exists()


def test_too_few_pairs_for_three_parts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", rows(1))
    with pytest.raises(DataError, match="no pair fell into"):
        load(files_config(tmp_path, {"all": "all.jsonl"}), Workspace(tmp_path, tmp_path / "out"))


def test_too_many_bad_records(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [*rows(50), *[{**row, "score": 9} for row in rows(50, start=50)]])
    with pytest.raises(DataError, match=r"50.0% of 100 records were rejected.*\n.*all.jsonl:51: out_of_range"):
        load(files_config(tmp_path, {"all": "all.jsonl"}), Workspace(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"load_pairs.split": {"train": 0.9, "validation": 0.2, "test": 0.1}}, "add up to 1"),
        ({"load_pairs.conflicting_values": "mean"}, "'mean' is not one of reject, first"),
        ({"load_pairs.surprise": 1}, "load_pairs.surprise: unknown key"),
    ],
)
def test_a_config_that_does_not_fit(override: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(load_pairs.Config, composed("contracts", override).load_pairs, "load_pairs")


def test_sick(shared_data: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    metrics = load(composed("sick", {"regression.raw": str(shared_data / "pairs")}), workspace)
    assert metrics["pairs"]["num_read"] == 9927
    assert metrics["pairs"]["rejected"] == {"conflicting_values": 235, "duplicate": 16}
    official = {part: len(read(workspace, "sick", "by_pair", part)) for part in PARTS}
    assert official == {"train": 4369, "validation": 488, "test": 4819}
    assert {pair.part for pair in read(workspace, "sick", "by_pair", "test")} == {"test"}
    assert metrics["splits"]["by_contract"]["num_mixed_dropped"] == 0
    assert metrics["splits"]["by_contract"]["test"]["share"] == pytest.approx(0.15, abs=0.03)
