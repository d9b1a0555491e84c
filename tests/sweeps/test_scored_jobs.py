"""Jobs that train and evaluate, on a tiny model: what is measured, what is read, when it is measured again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stages import merge_book, train_book_lora
from stages.compose import compose
from stages.core.config import parse_section
from stages.core.fingerprint import sha256_files
from stages.core.jsonl import read_jsonl, write_jsonl
from stages.core.stage import Trial
from stages.core.workspace import Workspace
from stages.sweeps.job_file import read_job
from stages.sweeps.results import SweepResults
from stages.sweeps.scoring import spread
from tests.sweeps.conftest import preset_jobs, run_jobs
from tests.training.conftest import (  # noqa: F401  # fixtures
    model_config,
    new_workspace,
    prompt_config,
    tiny_base,
    tiny_tokenizer,
)

pytestmark = pytest.mark.slow

SMALL = [
    "model.max_context_tokens=512",
    "sweep.max_new_tokens=8",
    "sweep.num_resamples=200",
    *(f"{s}.training.{k}={v}" for s in ("train_book_lora", "train_rag_lora") for k, v in
      {"num_epochs": 1, "batch_size": 4, "max_length": 512, "num_threads": 1, "bf16": "false", "activation_checkpointing": "false"}.items()),
    "train_book_lora.held_out_share=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def repository(new_workspace: Callable[[], Workspace]) -> Workspace:  # noqa: F811
    """A repository with a merged book model, whose validation part also holds a question to abstain from."""
    workspace, config = new_workspace(), compose(SMALL)
    for stage in (train_book_lora, merge_book):
        name = stage.__name__.split(".")[-1]
        stage.run(parse_section(stage.Config, config[name], name), workspace)
    validation = workspace.inputs / "data/demo/rag/validation.jsonl"
    rows = read_jsonl(validation)
    write_jsonl(validation, [*rows, {**rows[0], "id": "boundary-1", "kind": "boundary"}])
    return workspace


@pytest.fixture
def run_sweep(repository: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SweepResults]:
    monkeypatch.setattr("stages.sweeps.job.ROOT", repository.inputs)
    monkeypatch.setattr("stages.sweeps.job.die_with_parent", lambda: None)

    def run(stage: str, grid: Sequence[Sequence[str]], metric: str) -> SweepResults:
        return run_jobs(Trial(stage, ""), grid, SMALL, metric, tmp_path)

    return run


def test_a_grid_over_rank_and_alpha_and_seeds(
    repository: Workspace, run_sweep: Callable[..., SweepResults], tmp_path: Path
) -> None:
    before = sha256_files(repository.inputs / "models") | sha256_files(repository.inputs / "data")
    grid = [
        [f"train_rag_lora.lora.r={r}", f"train_rag_lora.lora.alpha={a}", f"seed={s}"]
        for r in (2, 4) for a in (4, 8) for s in (1, 2)
    ]  # fmt: skip
    results = run_sweep("train_rag_lora", grid, "loss")
    assert [job.status for job in results.jobs] == ["finished"] * 8
    assert sha256_files(repository.inputs / "models") | sha256_files(repository.inputs / "data") == before

    assert len(results.configurations) == 4
    best = results.configurations[0]
    assert sorted(best.scores.seeds) == [1, 2]
    assert best.estimate.value == min(one.estimate.value for one in results.configurations)
    assert best.scores.ids == ["qa-8", "qa-9", "qa-10"]  # validation questions, without the one to abstain from
    assert results.versus_runner_up is not None and results.versus_runner_up.num_seeds == 2

    job = results.jobs[0]
    assert {"data/demo/rag/validation.jsonl", "models/demo/book_merged/model.safetensors"} <= set(job.note["inputs"])
    assert not any(name.endswith("test.jsonl") for name in job.note["inputs"])
    page = (tmp_path / "reports/train_rag_lora/sweep.md").read_text()
    assert "Best by validation loss" in page and "istinguishable.**" in page and "over 2 seeds" in page
    assert (tmp_path / "reports/train_rag_lora/sweep.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "reports/train_rag_lora/sweep.csv").read_text().splitlines()))
    assert len(rows) == 8 and all(
        float(row["loss_low"]) <= float(row["loss"]) <= float(row["loss_high"]) for row in rows
    )


def test_a_job_is_the_same_training_as_the_stage_alone(
    repository: Workspace, run_sweep: Callable[..., SweepResults], tmp_path: Path
) -> None:
    from stages import train_rag_lora

    grid = [["train_rag_lora.lora.r=2"], ["train_rag_lora.lora.r=3"]]  # the second in the process of the first
    results = run_sweep("train_rag_lora", grid, "exact_match")
    alone = Workspace(repository.inputs, tmp_path / "alone")
    train_rag_lora.run(parse_section(train_rag_lora.Config, compose([*SMALL, *grid[1]]).train_rag_lora, "s"), alone)
    adapter = "models/demo/rag_lora"
    assert sha256_files(alone.outputs / adapter) == sha256_files(results.jobs[1].folder / adapter)


def test_the_preset_of_modules_trains_ever_more_of_the_model(
    run_sweep: Callable[..., SweepResults], tmp_path: Path
) -> None:
    results = run_sweep("train_book_lora", preset_jobs("modules", "train_book_lora"), "perplexity")
    sizes = [job.reported["num_trainable_parameters"] for job in results.jobs]
    assert len(sizes) == 4 and sizes == sorted(set(sizes))
    assert list(results.varied.values()) == ["modules"]
    page = (tmp_path / "reports/train_book_lora/sweep.md").read_text()
    assert "| `[q_proj,v_proj]` |" in page and "| `[q_proj,k_proj,v_proj,o_proj,gate_proj]` |" in page
    assert (tmp_path / "reports/train_book_lora/sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_book_is_chosen_by_its_held_out_sections(run_sweep: Callable[..., SweepResults]) -> None:
    results = run_sweep("train_book_lora", [["train_book_lora.lora.r=2"], ["train_book_lora.lora.r=8"]], "perplexity")
    for job in results.jobs:
        reported = json.loads((job.folder / "reports/demo/train_book_lora/metrics.json").read_text())
        after = reported["after"]["book_heldout"]["perplexity"]
        assert job.measured["metrics"]["perplexity"]["value"] == pytest.approx(after, rel=1e-4)


def test_a_finished_job_is_left_alone_until_settings_or_inputs_change(
    repository: Workspace, run_sweep: Callable[..., SweepResults]
) -> None:
    grid = [["train_rag_lora.lora.r=2"]]
    first = run_sweep("train_rag_lora", grid, "loss").jobs[0]
    stamp = (first.folder / "job.json").stat().st_mtime_ns
    assert (run_sweep("train_rag_lora", grid, "loss").jobs[0].folder / "job.json").stat().st_mtime_ns == stamp
    validation = repository.inputs / "data/demo/rag/validation.jsonl"
    text = validation.read_text()
    try:
        validation.write_text(text.replace("Bako9 did", "Bako9 has"))
        again = run_sweep("train_rag_lora", grid, "loss").jobs[0]
    finally:
        validation.write_text(text)
    assert read_job(again.folder)["inputs"] != first.note["inputs"]


def test_questions_are_taken_from_all_over_the_list() -> None:
    assert spread(range(10), 0) == list(range(10))
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 5) == [0, 1]
