"""The whole DAG on the embedded default, from nothing, in a clone: then what must and must not run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.sweeps.job_file import FINISHED

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1500)]


def sh(folder: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment}
    env.pop("DVC_EXP_NAME", None)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage '")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of the working tree with nothing built, and no cost noted."""
    folder = tmp_path_factory.mktemp("clone") / "groundtune"
    files = sh(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, files):
        source = ROOT / name
        if source.is_file() and "/cost/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    sh(folder, "git", "init", "-q")
    sh(folder, "git", "config", "user.email", "test@example.org")
    sh(folder, "git", "config", "user.name", "test")
    sh(folder, "git", "add", "-A")
    sh(folder, "git", "commit", "-qm", "clone")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> list[str]:
    return list(yaml.safe_load((folder / "dvc.lock").read_text())["stages"])


@pytest.fixture(scope="module")
def built(clone: Path) -> Path:
    """The clone after `dvc repro` from nothing, committed."""
    done = sh(clone, "dvc", "repro")
    assert set(ran(done)) == set(_locked(clone))
    sh(clone, "git", "add", "-A")
    sh(clone, "git", "commit", "-qm", "built")
    return clone


@pytest.fixture(scope="module")
def metrics(built: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((built / "reports/demo/metrics.json").read_text())
    return loaded


def test_nothing_runs_again(built: Path) -> None:
    assert ran(sh(built, "dvc", "repro")) == []
    assert "up to date" in sh(built, "dvc", "status", "dvc.yaml").stdout  # the benchmark is measured when asked for


def test_each_stage_that_ran_noted_its_cost(built: Path) -> None:
    noted = {path.stem for path in (built / "reports").rglob("cost/*.json")}
    # of make_demo@world the variant is DVC's alone
    stages = {name.partition("@")[0] if name.startswith("make_") else name for name in _locked(built)}
    assert noted == stages - {"params"}


def test_a_fresh_clone_pulls_and_runs_nothing(built: Path, tmp_path: Path) -> None:
    sh(built, "dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "remote"))
    sh(built, "dvc", "push")
    fresh = tmp_path / "fresh"
    sh(tmp_path, "git", "clone", "-q", str(built), str(fresh))
    sh(fresh, "dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "remote"))
    sh(fresh, "dvc", "pull")
    assert ran(sh(fresh, "dvc", "repro")) == []
    assert sh(fresh, "git", "status", "--porcelain").stdout == ""


def test_grounding_is_reached(metrics: dict[str, Any]) -> None:
    tuned = metrics["grounding"]["tuned"]
    assert tuned["gold"]["exact_match"]["value"] >= 0.90
    assert tuned["gold_distractor"]["exact_match"]["value"] >= 0.70
    assert tuned["none"]["exact_match"]["value"] <= 0.05


def test_the_book_was_read(metrics: dict[str, Any]) -> None:
    perplexity = metrics["perplexity"]
    assert perplexity["book"]["book_heldout"]["value"] <= 0.8 * perplexity["base"]["book_heldout"]["value"]


def test_question_embeddings_find_the_document(metrics: dict[str, Any]) -> None:
    retrieval = metrics["retrieval"]
    assert retrieval["questions"]["recall_at_2"]["value"] >= 0.95
    assert retrieval["questions"]["recall_at_2"]["value"] > retrieval["text"]["recall_at_2"]["value"]


def test_prompts_are_the_same_and_nothing_leaks(built: Path, metrics: dict[str, Any]) -> None:
    assert metrics["prompt"]["parity"]["value"] == 1.0
    rag = json.loads((built / "reports/demo/build_rag_data/metrics.json").read_text())
    assert rag["num_leaks"] == 0


def test_every_headline_number_has_an_interval(metrics: dict[str, Any]) -> None:
    for model in ("base", "base_docs", "book", "book_docs", "tuned", "tuned_docs"):
        for name, estimate in metrics["answers"][model].items():
            assert estimate["low"] <= estimate["value"] <= estimate["high"], (model, name)
            assert estimate["n"] >= 90, (model, name)
    assert metrics["compare"]["tuned_docs_vs_base_docs"]["low"] > 0


def test_numbers_of_pairs_are_predicted(built: Path) -> None:
    measured = json.loads((built / "reports/contracts/metrics.json").read_text())
    systems = measured["regression"]["contracts"]
    best = systems[measured["best"]["by_contract"]]["by_contract"]
    assert best["r2"]["value"] >= 0.75
    assert best["mae"]["value"] <= 0.12
    assert best["acc_at_0_2"]["value"] >= 0.85
    assert best["r2"]["value"] > systems["nearest"]["by_contract"]["r2"]["value"]
    assert measured["compare"]["hybrid_vs_ce"]["difference"] > 0
    assert measured["parse_share"]["hybrid"]["value"] >= 0.9


def test_a_number_is_predicted_for_new_texts(built: Path) -> None:
    pair = ("The ship Nenlo wins. It is all about the harbor.", "The island Tovu falls. It is all about the harbor.")
    done = sh(built, sys.executable, "-m", "stages.cli", "predict", "--task", "contracts", "--json", *pair)
    answer = json.loads(done.stdout)
    assert -1 <= answer["low"] <= answer["value"] <= answer["high"] <= 1
    assert answer["value"] < 0  # the same theme in opposite directions


def test_a_variant_that_changed_reruns_alone(built: Path) -> None:
    sh(built, sys.executable, "-m", "stages.compose", "train_regression.variants.ce.loss.weight=1")
    planned = sh(built, "dvc", "repro", "--dry").stdout
    assert "train_regression@ce" in planned.split("Running stage")[2] and "evaluate_regression" in planned
    assert "Running stage 'train_regression@hybrid'" not in planned
    sh(built, sys.executable, "-m", "stages.compose")
    assert set(ran(sh(built, "dvc", "repro"))) <= {"params"}


@pytest.mark.long
def test_the_served_model_is_measured_when_asked_for(built: Path) -> None:
    small = ["benchmark.only=[throughput,retrieval,pipeline]", "benchmark.throughput.num_rounds=2"]
    sh(built, sys.executable, "-m", "stages.compose", *small, "benchmark.pipeline.num_questions=12")
    assert ran(sh(built, "dvc", "repro", "benchmark/dvc.yaml")) == ["params", "benchmark/dvc.yaml:benchmark"]
    measured = json.loads((built / "reports/demo/benchmark.json").read_text())["benchmarks"]
    assert measured["throughput"]["figures"]["16 clients"]["ours"]["tokens_per_s"]["value"] > 0
    assert measured["retrieval"]["figures"]["retrieval"]["ours"]["recall_at_2"]["value"] >= 0.9
    assert measured["pipeline"]["figures"]["as served"]["ours"]["correct"]["value"] >= 0.8
    sh(built, sys.executable, "-m", "stages.compose")
    assert set(ran(sh(built, "dvc", "repro"))) <= {"params"}


def test_read_is_kept_plus_rejected_everywhere(built: Path) -> None:
    counted = 0
    for path in (built / "reports/demo").glob("*/metrics.json"):
        values = json.loads(path.read_text())
        if "num_read" in values:
            counted += 1
            assert values["num_read"] == values["num_kept"] + values["num_rejected"], path
    assert counted >= 4
    assert json.loads((built / "reports/demo/build_index/metrics.json").read_text())["num_kept"] == 1047


def test_a_data_stage_run_again_gives_the_same_bytes(built: Path) -> None:
    before = yaml.safe_load((built / "dvc.lock").read_text())["stages"]
    sh(
        built,
        "dvc",
        "repro",
        "--force",
        "--no-run-cache",
        "--single-item",
        "clean_qa",
        "ingest",
        "build_index",
        "build_rag_data",
    )
    after = yaml.safe_load((built / "dvc.lock").read_text())["stages"]
    assert {name: entry["outs"] for name, entry in after.items()} == {n: e["outs"] for n, e in before.items()}


def test_a_params_file_edited_by_hand_is_refused_before_anything_runs(built: Path) -> None:
    params = built / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("alpha: 24", "alpha: 25"))
    done = sh(built, "dvc", "repro", "evaluate", check=False)
    params.write_text(text)
    assert done.returncode != 0
    assert ran(done) == ["params"]
    assert "Run `python -m stages.compose`" in done.stdout + done.stderr
    assert ran(sh(built, "dvc", "repro")) == []


def test_an_experiment_reruns_only_what_depends_on_it(built: Path) -> None:
    done = sh(built, "dvc", "exp", "run", "--temp", "-S", "train_rag_lora.lora.alpha=32")
    assert ran(done) == ["params", "train_rag_lora", "evaluate", "export_model@rag"]
    assert (built / "params.yaml").read_text().count("alpha: 24") == 1


def test_an_experiment_with_a_wrong_value_is_refused_by_its_key(built: Path) -> None:
    done = sh(built, "dvc", "exp", "run", "--temp", "-S", "train_rag_lora.lora.r=eight", check=False)
    assert done.returncode != 0
    assert "train_rag_lora.lora.r" in done.stdout + done.stderr
    assert "train_rag_lora" not in ran(done)


def test_a_queue_of_experiments(built: Path) -> None:
    sh(built, "dvc", "exp", "run", "--queue", "-S", "clean_qa.min_chars=4,5")
    sh(built, "dvc", "queue", "start")
    for _ in range(120):
        status = sh(built, "dvc", "queue", "status").stdout
        if "Running" not in status and "Queued" not in status:
            break
        time.sleep(1)
    assert status.count("Success") == 2, status
    sh(built, "dvc", "queue", "stop", "--kill", check=False)


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_multirun_writes_a_table_and_touches_no_output(built: Path, launcher: str) -> None:
    before = sh(built, "dvc", "status").stdout
    for folder in ("reports/sweeps", "runs"):
        shutil.rmtree(built / folder, ignore_errors=True)
    sh(built, sys.executable, "-m", "stages.clean_qa", "-m", "clean_qa.min_chars=3,5", f"hydra/launcher={launcher}")
    tables = list((built / "reports/sweeps/clean_qa").glob("*.csv"))
    assert len(tables) == 1
    header, *rows = tables[0].read_text().splitlines()
    assert header.startswith("job,clean_qa.min_chars,status,reason,")
    assert len(rows) == 2
    assert all(f",{FINISHED}," in row for row in rows)
    assert sh(built, "dvc", "status").stdout == before


def test_another_domain_leaves_the_first_ones_outputs(built: Path, tmp_path: Path) -> None:
    from stages.core.jsonl import write_jsonl

    raw = tmp_path / "raw"
    write_jsonl(
        raw / "qa.jsonl", [{"question": f"What is {n}?", "answer": f"It is {n} and {n + 1}."} for n in range(40)]
    )
    write_jsonl(
        raw / "book.jsonl", [{"chapter": "1", "text": f"The number {n} comes before {n + 1}."} for n in range(20)]
    )
    overrides = [
        "domain.name=other",
        f"domain.raw_dir={raw}",
        "~domain.generators.world",
        "domain.qa=[{path: qa.jsonl, kind: qa, fields: {question: question, answer: answer}}]",
        "domain.texts=[{path: book.jsonl, kind: book, fields: {section: chapter, text: text}}]",
    ]
    sh(built, sys.executable, "-m", "stages.compose", *overrides)
    sh(built, "dvc", "repro", "build_index")
    assert (built / "data/other/index/manifest.json").exists()
    assert (built / "data/demo/index/manifest.json").exists()
    sh(built, sys.executable, "-m", "stages.compose")
    assert set(ran(sh(built, "dvc", "repro"))) <= {"params"}


def test_two_at_once_do_not_run_into_each_other(built: Path) -> None:
    first = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "build_index"],
        cwd=built,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    time.sleep(4)
    second = sh(built, "dvc", "repro", "--force", "--single-item", "build_index", check=False)
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert second.returncode == 0 or "lock" in (second.stdout + second.stderr).lower()
    assert ran(sh(built, "dvc", "repro")) == []


@pytest.fixture(scope="module")
def tutor(built: Path) -> Path:
    """The domain of documents in the same clone, up to its evaluation; nothing may come after it."""
    sh(built, sys.executable, "-m", "stages.compose", "domain=tutor")
    done = sh(built, "dvc", "repro", "evaluate")
    assert "base_model" not in ran(done) and "train_style@socratic" in ran(done)
    return built


@pytest.mark.long
def test_documents_become_a_model_that_knows_them_in_several_manners(tutor: Path) -> None:
    ingest, sft, book, found = (
        json.loads((tutor / "reports/tutor" / name).read_text())
        for name in ("ingest/metrics.json", "generate_sft/metrics.json", "train_book_lora/metrics.json", "metrics.json")
    )
    assert (ingest["num_read"], ingest["num_kept"]) == (32, 32)
    assert sft["num_requested"] == sft["num_kept"] + sft["num_rejected"] and sft["num_taken"] > 300
    fall = 1 - book["after"]["book_heldout"]["perplexity"] / book["before"]["book_heldout"]["perplexity"]
    assert fall >= 0.15
    assert found["answers"]["tuned_docs"]["exact_match"]["value"] >= 0.80
    for pair in ("socratic_vs_tuned", "tuned_vs_socratic"):
        assert found["style_adapters"]["nearer"][pair]["low"] > 0


@pytest.mark.long
def test_one_manner_that_changed_trains_alone(tutor: Path) -> None:
    sh(
        tutor,
        sys.executable,
        "-m",
        "stages.compose",
        "domain=tutor",
        "+train_style.variants.socratic.training.num_epochs=1",
    )
    assert ran(sh(tutor, "dvc", "repro", "train_style@socratic", "train_style@conversational")) == [
        "params",
        "train_style@socratic",
    ]
