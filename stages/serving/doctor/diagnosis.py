"""All checks together. Nothing is fetched, built or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.core.workspace import Workspace
from stages.serving.doctor.check import Check, Params
from stages.serving.doctor.models import embedder_check, memory_checks, model_check, model_size
from stages.serving.doctor.software import machine_checks, software_checks

BUILT = {
    "index": "data/{domain}/index/manifest.json",
    "book model": "models/{domain}/book_merged/config.json",
    "RAG LoRA": "models/{domain}/rag_lora/adapter.json",
    "report": "reports/{domain}/report.md",
}


def diagnose(params: Params, workspace: Workspace, params_difference: Callable[[], list[str]]) -> list[Check]:
    """All checks. params: params.yaml; params_difference: how it differs from what conf/ composes to."""
    size = model_size(params["chat"]["model"], workspace)
    return [
        *machine_checks(workspace),
        *software_checks(workspace),
        *parameter_checks(params, params_difference),
        model_check(params["chat"]["model"], workspace),
        embedder_check(params["chat"]["embedder"]),
        *memory_checks(params, size),
        *material_checks(params, workspace),
        built_check(params, workspace),
    ]


def to_report(checks: list[Check]) -> dict[str, Any]:
    """The JSON of the report: `ok` is False where a check is a problem."""
    return {"ok": not any(check.status == "problem" for check in checks), "checks": [asdict(c) for c in checks]}


def parameter_checks(params: Params, difference: Callable[[], list[str]]) -> Iterator[Check]:
    chat, overrides = params["chat"], params.get("overrides") or []
    chosen = f"domain {chat['domain']}, model {chat['model']['name']}, embedder {chat['embedder']['name']}"
    yield Check("configuration", "chosen", "ok", chosen + (f" ({' '.join(overrides)})" if overrides else ""))
    changed = [line for line in difference() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    if changed:
        fix = "python -m stages.compose (with the overrides you want), or carry the change into conf/"
        found = f"not what conf/ composes to: {'; '.join(changed[:3])}"
        yield Check("configuration", "params.yaml", "problem", found, fix)
    else:
        yield Check("configuration", "params.yaml", "ok", "is what conf/ composes to")


def material_checks(params: Params, workspace: Workspace) -> Iterator[Check]:
    domain = params["domain"]
    folder = workspace.inputs / Path(domain["raw_dir"]).expanduser()
    missing = [s["path"] for s in [*domain["qa"], *domain["texts"]] if not (folder / s["path"]).exists()]
    if not missing:
        yield Check("material", "raw files", "ok", f"all in {domain['raw_dir']}")
    elif domain["generators"]:
        yield Check("material", "raw files", "ok", "not written yet", "dvc repro writes them")
    else:
        found = f"missing in {folder}: {', '.join(missing)}"
        yield Check("material", "raw files", "problem", found, f"put them there, or set domain.raw_dir in conf/domain")


def built_check(params: Params, workspace: Workspace) -> Check:
    domain = params["chat"]["domain"]
    there = {name: (workspace.inputs / path.format(domain=domain)).exists() for name, path in BUILT.items()}
    missing = [name for name, exists in there.items() if not exists]
    if missing:
        return Check("material", "built", "note", f"not yet: {', '.join(missing)}", "dvc repro")
    return Check("material", "built", "ok", ", ".join(there))
