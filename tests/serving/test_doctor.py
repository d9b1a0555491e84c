from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError
from stages.core.process import quiet_environment
from stages.core.schema import Domain, Embedder, Lora, Model, Source, Training
from stages.core.workspace import Workspace
from stages.serving import machine
from stages.serving.doctor import software
from stages.serving.doctor.check import Check, size_text
from stages.serving.doctor.diagnosis import diagnose, freshness_check, material_check, to_report
from stages.serving.doctor.models import embedder_check, model_check, model_size, need_checks

MAX_TOKENS = 512


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git and DVC repository in which telemetry is off."""
    quiet_environment()
    for key in software.TELEMETRY:
        monkeypatch.setenv(key, software.QUIET[key])
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    return tmp_path


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(folder))
    return folder


def by_name(checks: Iterator[Check] | list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def params(tmp_path: Path) -> dict[str, Any]:
    training = {
        "learning_rate": 1.0,
        "num_epochs": 1,
        "batch_size": 1,
        "max_length": 8,
    }
    stage = {"lora": {"r": 2, "alpha": 4, "modules": ["q_proj"]}, "training": training}
    prompt = {"name": "p", "with_documents": "{documents}", "without_documents": "", "documents": "{documents}"}
    return {
        "overrides": ["domain=world"],
        "domain": {
            "name": "world",
            "language": "en",
            "raw_dir": "raw",
            "curation_dir": "curation",
            "qa": [{"path": "qa.jsonl", "kind": "qa"}],
        },
        "chat": {
            "domain": "world",
            "model": {"name": "random", "kind": "build", "max_context_tokens": MAX_TOKENS},
            "embedder": {"name": "e", "path": str(tmp_path), "dimension": 8, "max_tokens": 8},
            "prompt": {**prompt, "document": "{number}{text}", "abstain": ""},
            "retrieval": {"store": "faiss"},
            "kinds": ["book"],
            "top_k": 2,
            "max_distance": 0.5,
            "num_siblings": 1,
            "max_new_tokens": 8,
        },
        "train_book_lora": stage,
        "train_rag_lora": stage,
    }


def run(repository: Path, read: Callable[[], Mapping[str, Any]], difference: list[str]) -> dict[str, Check]:
    return by_name(diagnose(read, lambda: difference, Workspace(repository, repository)))


def test_a_machine_that_lacks_nothing(repository: Path, built_models: Path) -> None:
    shutil.copytree(built_models / "models", repository / "models")
    (repository / "raw").mkdir()
    (repository / "raw" / "qa.jsonl").touch()
    (repository / "model.safetensors").touch()  # the embedder's
    checks = run(repository, lambda: params(repository), [])
    assert {check.status for name, check in checks.items() if name != "built"} == {"ok"}
    assert checks["chosen"].found == "domain world, model random, embedder e (domain=world)"
    assert "to train_rag_lora" in checks and "to answer" in checks
    assert checks["built"].status == "note" and checks["built"].fix == "dvc repro"
    assert to_report(list(checks.values()))["ok"] is True


def test_each_problem_has_a_way_out_and_fails_the_report(repository: Path) -> None:
    shutil.rmtree(repository / ".dvc")
    values = params(repository)
    values["chat"]["model"].update(kind="local", path="nowhere")
    checks = run(repository, lambda: values, ["--- params.yaml", "+++ conf", "@@ -1 +1 @@", "-seed: 1", "+seed:  2"])
    problems = {name: check for name, check in checks.items() if check.status == "problem"}
    assert set(problems) == {"DVC", "params.yaml", "base model", "embedder", "raw files"}
    assert all(check.fix for check in problems.values())
    assert "-seed: 1; +seed: 2" in problems["params.yaml"].found
    report = to_report(list(checks.values()))
    assert report["ok"] is False
    assert json.loads(json.dumps(report))["checks"][0]["group"] == "machine"


def test_broken_parameters_are_a_problem_and_the_machine_is_checked(repository: Path) -> None:
    def broken() -> dict[str, Any]:
        raise ConfigError("params.yaml is missing: run `python -m stages.compose`")

    checks = run(repository, broken, [])
    assert checks["params.yaml"].status == "problem" and "is missing" in checks["params.yaml"].found
    assert "memory" in checks

    values = params(repository)
    values["chat"]["top_kk"] = 3
    assert "chat.top_kk: unknown key" in run(repository, lambda: values, [])["params.yaml"].found
    del values["train_rag_lora"]
    del values["chat"]["top_kk"]
    assert "train_rag_lora" in run(repository, lambda: values, [])["params.yaml"].found


def test_many_changed_parameters_are_shortened() -> None:
    check = freshness_check([f"+key{number}: 1" for number in range(50)])
    assert check.status == "problem" and len(check.found) < 120
    assert freshness_check([]).status == "ok"


def test_wrong_and_missing_packages_are_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["rich<1", "no-such-package>=2", "typer", "pytest<1; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    check = by_name(software.software_checks(Workspace(repository, repository)))["packages"]
    assert check.status == "problem"
    assert check.found == f"rich {importlib.metadata.version('rich')} is not <1, no-such-package is missing"


def test_telemetry_that_is_on_is_noted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    (repository / ".dvc" / "config").write_text("[core]\n")
    check = by_name(software.software_checks(Workspace(repository, repository)))["telemetry"]
    assert check.found == "on: WANDB_MODE, DVC's analytics"
    assert check.fix == "unset WANDB_MODE; dvc config core.analytics false"


def test_no_repository_is_a_problem(tmp_path: Path) -> None:
    checks = by_name(software.software_checks(Workspace(tmp_path, tmp_path)))
    assert (checks["git"].status, checks["DVC"].status) == ("problem", "problem")


def test_a_gpu_that_torch_cannot_use_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "driver_gpus", lambda: ["NVIDIA A100"])
    monkeypatch.setattr(machine, "torch_is_cpu_build", lambda: True)
    check = by_name(software.machine_checks(Workspace(tmp_path, tmp_path)))["GPU"]
    assert (check.status, check.found) == ("note", "NVIDIA A100, but torch is a CPU build")


def test_a_hub_model_that_is_not_cached_says_how_to_fetch_it(hub: Path, tmp_path: Path) -> None:
    model = Model(
        name="llama",
        kind="hub",
        path="meta-llama/Llama-3.1-8B",
        revision="a" * 40,
        dtype="bfloat16",
        max_context_tokens=9,
    )
    check = model_check(model, Workspace(tmp_path, tmp_path))
    assert check.status == "problem"
    assert check.found == "meta-llama/Llama-3.1-8B is not in the local cache (about 14.9 GiB by its name)"
    assert check.fix.startswith(f"hf download meta-llama/Llama-3.1-8B --revision {'a' * 40} ")


def test_a_hub_model_counts_as_cached_only_with_all_its_shards(hub: Path, built_models: Path, tmp_path: Path) -> None:
    revision = "b" * 40
    snapshot = hub / "models--owner--name" / "snapshots" / revision
    shutil.copytree(built_models / "models" / "base" / "random", snapshot)
    model = Model(name="m", kind="hub", path="owner/name", revision=revision, max_context_tokens=9)
    workspace = Workspace(tmp_path, tmp_path)
    assert model_check(model, workspace).status == "ok"
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_check(model, workspace).status == "problem"
    (snapshot / "model-2.safetensors").symlink_to(snapshot / "model.safetensors")
    assert model_check(model, workspace).status == "ok"


def test_a_model_to_be_built_is_no_problem(tmp_path: Path) -> None:
    check = model_check(Model(name="tiny", kind="build", max_context_tokens=9), Workspace(tmp_path, tmp_path))
    assert (check.status, check.fix) == ("ok", "dvc repro builds it (minutes)")


def test_a_broken_model_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    model = Model(name="m", kind="local", path=str(tmp_path), max_context_tokens=9)
    workspace = Workspace(tmp_path, tmp_path)
    assert model_check(model, workspace).status == "problem"
    assert model_size(model, workspace) is None


def test_an_embedder_says_how_to_get_it(hub: Path) -> None:
    packaged = embedder_check(Embedder(name="e", package="no_such_package", dimension=8, max_tokens=8))
    assert packaged.status == "problem" and "pip install no-such-package" in packaged.found + packaged.fix
    fetched = embedder_check(Embedder(name="e", path="owner/name", dimension=8, max_tokens=8))
    assert fetched.status == "problem" and "hf download owner/name" in fetched.fix


def test_needs_beyond_the_machine_are_noted(built_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(name="random", kind="build", max_context_tokens=MAX_TOKENS)
    size = model_size(model, Workspace(built_models, built_models))
    training = Training(learning_rate=1.0, num_epochs=1, batch_size=1, max_length=10**6)
    stages = {"train_rag_lora": (Lora(r=2, alpha=4, modules=["q_proj"]), training)}
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("A", machine.GIB, machine.GIB)])
    checks = by_name(need_checks(model, size, stages, Workspace(built_models, built_models)))
    assert checks["to answer"].status == "ok" and "of 1.0 GiB GPU memory" in checks["to answer"].found
    assert checks["to train_rag_lora"].status == "note" and "max_length" in checks["to train_rag_lora"].fix


def test_weights_that_fit_nowhere_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(name="m", kind="hub", path="owner/name-8B", revision="a", dtype="bfloat16", max_context_tokens=9)
    workspace = Workspace(tmp_path, tmp_path)
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("A", 16 * 10**9, 1)])
    monkeypatch.setattr(machine, "free_disk_bytes", lambda folder: 31 * 10**9)
    checks = by_name(need_checks(model, None, {}, workspace))
    assert (checks["to build"].status, checks["to answer"].status) == ("problem", "ok")
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("A", 15 * 10**9, 1)])
    monkeypatch.setattr(machine, "free_disk_bytes", lambda folder: 32 * 10**9)
    checks = by_name(need_checks(model, None, {}, workspace))
    assert (checks["to build"].status, checks["to answer"].status) == ("ok", "problem")


def test_raw_material_that_a_generator_writes_is_no_problem(tmp_path: Path) -> None:
    domain = Domain(
        name="d", language="en", raw_dir="raw", curation_dir="curation", qa=[Source(path="qa.jsonl", kind="qa")]
    )
    workspace = Workspace(tmp_path, tmp_path)
    assert material_check(domain, workspace).status == "problem"
    domain.generators = {"world": {}}
    assert material_check(domain, workspace).status == "ok"


def test_sizes_read_well() -> None:
    assert (size_text(15 * 2**30), size_text(3 * 2**20)) == ("15.0 GiB", "3 MiB")
