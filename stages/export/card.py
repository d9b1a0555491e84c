"""The model card: what a model was made from, how good it is with intervals, and what proves that it is that model.

Figures are looked up in metrics files by dotted keys of the configuration:

    data: reports/demo/build_rag_data/metrics.json      counts: {train: splits.train.num_rows}
    results: reports/demo/metrics.json                  figures: {tuned with documents: answers.tuned_docs}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core.dvc_lock import read_lock
from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.export.comparison import Measured, Nearness, RoundTrip

UNKNOWN_LICENCE = "other"


@dataclass
class CardConfig:
    """licences: model name -> licence as hubs spell it. data, results: metrics files; "" leaves that part out.

    counts: label -> dotted key of a number in `data`; split_hash: dotted key of the frozen split's hash in it.
    figures: label -> dotted key of a group of estimates in `results`.
    """

    licences: dict[str, str] = field(default_factory=dict)
    data: str = ""
    counts: dict[str, str] = field(default_factory=dict)
    split_hash: str = ""
    results: str = ""
    figures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """What the card says about where a model comes from.

    model: its base's name in the configuration; base: what others call it, such as a hub's id. notes: adapter folder
    -> its adapter.json. revisions: path -> md5 in dvc.lock, what `dvc get` would fetch. template: sha256 of the chat
    template ("" where the export has none of its own). chain: merge.json of the base, where that was itself merged.
    """

    name: str
    model: str
    base: str
    base_revision: str
    notes: Mapping[str, Mapping[str, Any]]
    revisions: Mapping[str, str]
    template: str = ""
    chain: Mapping[str, Any] = field(default_factory=dict)


def lookup(metrics: Mapping[str, Any], key: str, file: str) -> Any:
    """The value at a dotted key. Raises ConfigError naming the first part that is not there, and what is."""
    value: Any = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = ", ".join(sorted(value)) if isinstance(value, Mapping) else "a plain value"
            raise ConfigError(f"export_model.card: {file} has no {key} ({part!r} is not among: {there})")
        value = value[part]
    return value


def dvc_revisions(workspace: Workspace, paths: Sequence[str]) -> dict[str, str]:
    """path -> md5 of what DVC has stored for it, for those of `paths` that dvc.lock names."""
    outs = {out.path: out.md5 for stage in read_lock(workspace.inputs).values() for out in stage.outs if out.md5}
    return {path: outs[path] for path in paths if path in outs}


def write_card(
    path: Path,
    workspace: Workspace,
    config: CardConfig,
    provenance: Provenance,
    measured: Measured,
) -> None:
    """Writes README.md as model hubs expect it: YAML in front, Markdown below."""
    licence = config.licences.get(provenance.model, UNKNOWN_LICENCE)
    parts = [
        _front_matter(licence, provenance, "transformers" if measured.files else "peft"),
        f"# {provenance.name}\n",
        _origin(licence, provenance),
        _data(workspace, config),
        _training(provenance),
        _results(workspace, config),
        _export(measured.merges, measured.files),
    ]
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _front_matter(licence: str, provenance: Provenance, library: str) -> str:
    lines = ["---", f"license: {licence}", f"base_model: {json.dumps(provenance.base, ensure_ascii=False)}"]
    return "\n".join([*lines, f"library_name: {library}", "pipeline_tag: text-generation", "---\n"])


def _origin(licence: str, provenance: Provenance) -> str:
    at = f" at {provenance.base_revision}" if provenance.base_revision else ""
    lines = [
        "## What it was made from\n",
        f"- Base: {provenance.base}{at}; licence: {licence}, which binds this model too",
    ]
    if chain := provenance.chain:
        made = f"weights `{chain['base_sha256'][:16]}` and adapter `{chain['adapter_sha256'][:16]}`"
        lines.append(f"- First merged from {made}, {chain['agreement']:.2%} greedy agreement")
    for folder, note in provenance.notes.items():
        trained = " on the base in 4 bits" if note.get("quantise") else ""
        lines.append(f"- Adapter: `{folder}`, trained{trained} on weights `{str(note.get('base_sha256'))[:16]}`")
        if note.get("prompt_hash"):
            lines.append(f"  - Prompt template: `{note['prompt_hash']}`")
        lines += [f"  - Data: `{name}` sha256 `{sha}`" for name, sha in sorted(note.get("data_sha256", {}).items())]
    lines += [f"- Chat template: sha256 `{provenance.template}`"] if provenance.template else []
    lines += [f"- DVC: `{path}` md5 `{md5}`" for path, md5 in provenance.revisions.items()]
    return "\n".join([*lines, ""])


def _data(workspace: Workspace, config: CardConfig) -> str:
    if not config.data:
        return ""
    metrics = _read(workspace, config.data)
    lines = ["## Data\n", "| part | rows |", "| --- | ---: |"]
    lines += [f"| {label} | {lookup(metrics, key, config.data):,} |" for label, key in config.counts.items()]
    if config.split_hash:
        lines.append(f"\nSplit, frozen by hash: `{lookup(metrics, config.split_hash, config.data)}`")
    return "\n".join([*lines, ""])


def _training(provenance: Provenance) -> str:
    """The parameters of each adapter; many seeds of one training share theirs, which are shown once."""
    shown: dict[str, list[str]] = {}
    for folder, note in provenance.notes.items():
        settings = {**note.get("lora", {}), **note.get("training", {})}
        lines = [f"| {key} | {_value(settings[key])} |" for key in sorted(settings)]
        shown.setdefault("\n".join(lines), []).append(f"`{folder}` (seed {note.get('seed', 'unknown')})")
    blocks = [
        f"{', '.join(folders)}:\n\n| setting | value |\n| --- | ---: |\n{rows}\n" for rows, folders in shown.items()
    ]
    return "\n".join(["## Training\n", *blocks]) if blocks else ""


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _results(workspace: Workspace, config: CardConfig) -> str:
    if not config.results:
        return ""
    metrics = _read(workspace, config.results)
    lines = ["## Results\n", "95 % intervals.\n", "| model | metric | value | n |", "| --- | --- | ---: | ---: |"]
    for label, key in config.figures.items():
        for metric, number in estimates(lookup(metrics, key, config.results)):
            lines.append(f"| {label} | {metric} | {figure_text(number)} | {number['n']} |")
    return "\n".join([*lines, ""])


def figure_text(number: Mapping[str, Any]) -> str:
    """An estimate as 0.967 [0.913, 1.000]."""
    if number["value"] is None:
        return "not measured"
    low, high = number.get("low"), number.get("high")
    interval = "no interval" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return f"{number['value']:.3f} {interval}"


def estimates(group: Any, prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Every estimate at or below a key, with its name."""
    if not isinstance(group, Mapping):
        return []
    if {"value", "n"} <= set(group):
        return [(prefix or "value", group)]
    return [found for key in group for found in estimates(group[key], f"{prefix}.{key}".lstrip("."))]


def _export(merges: Sequence[Nearness], trips: Sequence[RoundTrip]) -> str:
    lines = []
    if merges:
        lines += ["## Merge\n", "Against base + adapter as trained; the first row is what was taken.\n"]
        lines += ["| merged into | mean KL, nats | greedy agreement | largest logit difference | positions |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {m.base} base | {m.mean_kl:.2e} | {m.agreement:.2%} | {m.max_logit_difference:.2e} | {m.num_tokens} |"
            for m in merges
        ]
        lines.append("")
    if trips:
        lines += [
            "## Files, read back\n",
            "Against the merged model in memory; template and token ids are equal in all.\n",
        ]
        lines += [
            "| file | largest logit difference | greedy agreement | equal answers |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {t.file} | {t.max_logit_difference:.2e} | {t.agreement:.2%} | {t.equal_answers} of {t.num_prompts} |"
            for t in trips
        ]
        lines.append("")
    return "\n".join([*lines, "Every file is in `manifest.json` with its sha256.\n"])


def _read(workspace: Workspace, file: str) -> dict[str, Any]:
    content = json.loads(workspace.read(file).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object of metrics")
    return content
