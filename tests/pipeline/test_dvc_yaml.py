"""dvc.yaml tells the truth: each stage declares the code it imports, its section, and nothing that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from stages.compose import compose

ROOT = Path(__file__).resolve().parents[2]

# How a stage starts, shows progress, notes its cost, words its errors and has dvc.lock watched does not change what it
# computes.
INFRASTRUCTURE = {
    f"stages.core.{name}"
    for name in (
        "cost",
        "engine",
        "errors",
        "launch",
        "lockfile",
        "process",
        "progress",
        "ray_cluster",
        "ray_engine",
        "read_only",
        "stage",
        "workspace",
    )
}
STAGES: dict[str, dict[str, Any]] = {
    name: entry.get("do", entry)
    for pipeline in ("dvc.yaml", "benchmark/dvc.yaml")
    for name, entry in yaml.safe_load((ROOT / pipeline).read_text(encoding="utf-8"))["stages"].items()
}
RUNNABLE = sorted(set(STAGES) - {"params"})


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("stages", cache_dir=None)


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    """As they stand in params.yaml: a group's default.yaml may take settings from further groups."""
    return {str(name): value for name, value in compose([]).items()}


def code_of(stage: str, imports: grimp.ImportGraph) -> set[str]:
    """The files whose code a stage may run: what its module imports, directly or not, on whatever line."""
    modules = {f"stages.{stage}"} | imports.find_upstream_modules(f"stages.{stage}")
    files = (ROOT / (module.replace(".", "/") + ".py") for module in modules - INFRASTRUCTURE)
    return {path.relative_to(ROOT).as_posix() for path in files if path.exists()}


@pytest.mark.parametrize("stage", RUNNABLE)
def test_a_stage_depends_on_exactly_the_code_it_imports(stage: str, imports: grimp.ImportGraph) -> None:
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    wanted = code_of(stage, imports)
    assert declared == wanted, f"dvc.yaml, {stage}.deps should be:\n" + "\n".join(f"  - {f}" for f in sorted(wanted))


@pytest.mark.parametrize("stage", RUNNABLE)
def test_stage_module_command_and_section_bear_one_name(stage: str, sections: dict[str, Any]) -> None:
    section = sections[stage]
    command = f"python -m stages.{stage}"
    if not {"variants", "launch", "engine"} & set(section):
        assert STAGES[stage]["cmd"] == command
        assert STAGES[stage]["params"] == [stage]
        return
    # every setting but the name of the variant, how many processes work and where; of the variants only its own
    settings = set(section) - {"variants", "variant", "num_workers", "launch", "engine"}
    if "variants" in section:
        command, settings = command + " @${key}", settings | {"variants.${key}"}
    assert STAGES[stage]["cmd"] == command
    assert set(STAGES[stage]["params"]) == {f"{stage}.{key}" for key in settings}


def test_every_first_stage_waits_for_the_params_check() -> None:
    produced = {
        out if isinstance(out, str) else next(iter(out)) for entry in STAGES.values() for out in entry.get("outs", [])
    }
    for name in RUNNABLE:
        deps = {dep for dep in STAGES[name]["deps"] if not dep.startswith("stages/")}
        inputs = deps & produced - {"${domain.raw_dir}"}
        assert inputs or "data/params.ok" in deps, f"{name} could run under a stale params.yaml"


@pytest.mark.parametrize("stage", RUNNABLE)
def test_reports_are_in_git_not_in_the_cache(stage: str) -> None:
    for item in [item for kind in ("outs", "metrics", "plots") for item in STAGES[stage].get(kind, [])]:
        path = item if isinstance(item, str) else next(iter(item))
        assert path.startswith("reports/") == (isinstance(item, dict) and item[path].get("cache") is False), item


REPORTING = {"evaluate", "evaluate_regression", "benchmark", "prepare_style"}  # pages in git, and quick to write again


def test_what_dvc_compares_is_few_numbers_and_pictures() -> None:
    """`dvc metrics diff` of whole evaluations is a thousand rows."""
    for stage in ("evaluate", "evaluate_regression"):
        metrics, plots = ([next(iter(item)) for item in STAGES[stage][kind]] for kind in ("metrics", "plots"))
        assert [Path(path).name for path in metrics + plots] == ["headline.json", "figures"]


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - REPORTING))
def test_a_stage_can_come_from_the_run_cache(stage: str) -> None:
    """DVC stores no run of a stage with an uncached output that is neither a metric nor a plot."""
    assert [out for out in STAGES[stage].get("outs", []) if isinstance(out, dict)] == []
