"""All checks together. Nothing is fetched, built or changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.core.config import parse_section
from stages.core.errors import ConfigError
from stages.core.schema import Domain, Lora, Training
from stages.core.workspace import Workspace
from stages.serving.answering import Config
from stages.serving.doctor.check import Check
from stages.serving.doctor.models import embedder_check, model_check, model_size, need_checks
from stages.serving.doctor.software import machine_checks, software_checks

TRAINING_STAGES = ("train_book_lora", "train_rag_lora")
COMPOSE = "python -m stages.compose (with the overrides you want), or carry the change into conf/"
MAX_CHANGED_LINES = 4
BUILT = {
    "index": "data/{domain}/index/manifest.json",
    "book model": "models/{domain}/book_merged/config.json",
    "RAG LoRA": "models/{domain}/rag_lora/adapter.json",
    "report": "reports/{domain}/report.md",
}


@dataclass(frozen=True)
class Configured:
    """What params.yaml asks for. training: the LoRA and training settings by stage."""

    chat: Config
    domain: Domain
    training: dict[str, tuple[Lora, Training]]
    overrides: list[str]


def read_configured(params: Mapping[str, Any]) -> Configured:
    """Raises ConfigError naming the section or key that does not fit."""
    try:
        return Configured(
            chat=parse_section(Config, params["chat"], "chat"),
            domain=parse_section(Domain, params["domain"], "domain"),
            training={stage: _training(params[stage], stage) for stage in TRAINING_STAGES},
            overrides=[str(override) for override in params.get("overrides") or []],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"params.yaml lacks {error}: run `python -m stages.compose`") from error


def _training(section: Mapping[str, Any], stage: str) -> tuple[Lora, Training]:
    return (
        parse_section(Lora, section["lora"], f"{stage}.lora"),
        parse_section(Training, section["training"], f"{stage}.training"),
    )


def diagnose(
    read_params: Callable[[], Mapping[str, Any]], difference: Callable[[], list[str]], workspace: Workspace
) -> list[Check]:
    """All checks. read_params: what params.yaml holds; difference: diff lines between it and what conf/ composes to.

    Both may raise ConfigError: that is a problem of the configuration, and the machine is checked all the same.
    """
    checks = [*machine_checks(workspace), *software_checks(workspace)]
    try:
        configured = read_configured(read_params())
        fresh = freshness_check(difference())
    except ConfigError as error:
        return [*checks, Check("configuration", "params.yaml", "problem", str(error), COMPOSE)]
    model = configured.chat.model
    return [
        *checks,
        chosen_check(configured),
        fresh,
        model_check(model, workspace),
        embedder_check(configured.chat.embedder),
        *need_checks(model, model_size(model, workspace), configured.training, workspace),
        material_check(configured.domain, workspace),
        built_check(configured.chat.domain, workspace),
    ]


def to_report(checks: list[Check]) -> dict[str, Any]:
    """The JSON of the report: `ok` is False where a check is a problem."""
    return {"ok": not any(check.status == "problem" for check in checks), "checks": [asdict(c) for c in checks]}


def chosen_check(configured: Configured) -> Check:
    """Which domain and models params.yaml is for."""
    chat, overrides = configured.chat, " ".join(configured.overrides)
    chosen = f"domain {chat.domain}, model {chat.model.name}, embedder {chat.embedder.name}"
    return Check("configuration", "chosen", "ok", f"{chosen} ({overrides})" if overrides else chosen)


def freshness_check(difference: list[str]) -> Check:
    """Whether params.yaml is what conf/ composes to."""
    changed = [line for line in difference if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")]
    if not changed:
        return Check("configuration", "params.yaml", "ok", "is what conf/ composes to")
    shown = "; ".join(" ".join(line.split()) for line in changed[:MAX_CHANGED_LINES])
    return Check("configuration", "params.yaml", "problem", f"is not what conf/ composes to: {shown}", COMPOSE)


def material_check(domain: Domain, workspace: Workspace) -> Check:
    """Whether every raw file of the domain is there, or can be written."""
    folder = workspace.inputs / Path(domain.raw_dir).expanduser()
    missing = [source.path for source in [*domain.qa, *domain.texts] if not (folder / source.path).exists()]
    if not missing:
        return Check("material", "raw files", "ok", f"all in {domain.raw_dir}")
    if domain.generators:
        return Check("material", "raw files", "ok", "not written yet", "dvc repro writes them")
    found = f"missing in {folder}: {', '.join(missing)}"
    return Check("material", "raw files", "problem", found, "put them there, or set domain.raw_dir in conf/domain")


def built_check(domain: str, workspace: Workspace) -> Check:
    """What `dvc repro` has built already."""
    missing = [name for name, path in BUILT.items() if not (workspace.inputs / path.format(domain=domain)).exists()]
    if missing:
        return Check("material", "built", "note", f"not yet: {', '.join(missing)}", "dvc repro")
    return Check("material", "built", "ok", ", ".join(BUILT))
