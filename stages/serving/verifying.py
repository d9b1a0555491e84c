"""Is what lies here what it says it is? Every hash is computed anew.

    dvc.lock            each output that is here, against its md5
    manifest.json       of base models and exports, and of versions under .cache/releases: each file's sha256
    adapter.json        base_sha256: a base or a book model that is here; data_sha256: the files its stage was run on;
                        prompt_hash: the template of the training data
    merge.json          base_sha256 and adapter_sha256, as above

What is not here is counted, and no fault: a checkout need not hold everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.core.dvc_lock import Lock, producer, read_lock
from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file
from stages.core.workspace import Workspace
from stages.export.adapters import MERGE_NOTE
from stages.export.manifest import MANIFEST, is_export, manifest_problems
from stages.generation.loading import ADAPTER_NOTE
from stages.serving.dvc_cache import differences, open_cache
from stages.training.lora import weights_sha256

SHORT = 12
WEIGHTS = "*.safetensors"


@dataclass
class Findings:
    """checked, absent: what -> how many. problems: a line each, naming the file."""

    checked: dict[str, int] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, problems: list[str] | None) -> None:
        """problems: None where it could not be checked, for what it needs is not here."""
        counts = self.absent if problems is None else self.checked
        counts[what] = counts.get(what, 0) + 1
        self.problems += problems or []


def verify(workspace: Workspace) -> Findings:
    """Checks everything that is here."""
    root = workspace.inputs
    lock, findings = read_lock(root), Findings()
    _outputs(root, lock, findings)
    for manifest in sorted([*root.glob(f"models/**/{MANIFEST}"), *root.glob(f".cache/releases/*/*/{MANIFEST}")]):
        findings.add("manifests", _manifest(manifest.parent, root))
    notes = _Notes(root, lock)
    for name in (ADAPTER_NOTE, MERGE_NOTE):
        for path in sorted(root.glob(f"models/**/{name}")):
            if not path.is_relative_to(root / "models/export"):  # a copy, which the manifest of its export vouches for
                for part, problems in notes.check(path):
                    findings.add(f"{name}: {part}", problems)
    return findings


def _outputs(root: Path, lock: Lock, findings: Findings) -> None:
    if not lock:
        return
    with open_cache(root) as cache:
        for out in (out for stage in lock.values() for out in stage.outs):
            try:
                findings.add("outputs of dvc.lock", differences(cache, root, out, anew=True))
            except FileNotFoundError:
                findings.add("outputs of dvc.lock", None)


def _manifest(folder: Path, root: Path) -> list[str] | None:
    """Of an export its files; of a base model those that it names, wherever they lie."""
    name = folder.relative_to(root)
    if is_export(folder):
        return [f"{name}/{problem}" for problem in manifest_problems(folder)]
    manifest = _read(folder / MANIFEST)
    if not {"path", "files"} <= manifest.keys():
        return [f"{name}/{MANIFEST}: neither of an export nor of a base model"]
    weights = folder / manifest["path"]
    if not weights.is_dir():  # of a hub, in a cache that is not here
        return None
    states = {
        file: "is missing" if not (weights / file).is_file() else "was changed"
        for file, digest in manifest["files"].items()
        if not (weights / file).is_file() or sha256_file(weights / file) != digest
    }
    return [f"{name}: {weights / file} {state}" for file, state in states.items()]


@dataclass
class _Notes:
    """What adapters and merged models say of what they were made from, against what is here."""

    root: Path
    lock: Lock

    def check(self, path: Path) -> Iterator[tuple[str, list[str] | None]]:
        """(what was checked, the problems) for each claim of a note."""
        note, where = _read(path), path.relative_to(self.root)
        if not note:
            yield "content", [f"{where}: broken or empty"]
            return
        for key in ("base_sha256", "adapter_sha256"):
            if key in note:
                yield key, self._known(where, key, note[key])
        if note.get("prompt_hash") and "prompt" not in note:  # its own prompt is checked where it is rendered
            yield "prompt_hash", self._prompt(where, note["prompt_hash"])
        for name, digest in note.get("data_sha256", {}).items():
            yield "data_sha256", self._data(where, name, digest)

    @cached_property
    def weights(self) -> dict[str, Path]:
        """Hash -> folder of every base, merged model and adapter that is here."""
        folders = {path.parent for path in self.root.glob(f"models/**/{WEIGHTS}")}
        for manifest in self.root.glob(f"models/base/*/{MANIFEST}"):
            folders.add(manifest.parent / _read(manifest).get("path", "."))
        return {weights_sha256(folder): folder for folder in sorted(folders) if any(folder.glob(WEIGHTS))}

    def _known(self, where: Path, key: str, digest: str) -> list[str] | None:
        """Against the weights that are here; None where a model that its stage was run on is not."""
        if digest in self.weights:
            return []
        stage = producer(self.lock, where.as_posix())
        models = [self.root / dep.path for dep in stage.deps if dep.path.startswith("models/")] if stage else []
        if any(not (model / _read(model / MANIFEST).get("path", ".")).is_dir() for model in models):
            return None
        return [f"{where}: {key} {digest[:SHORT]}: no model here has these weights"]

    def _prompt(self, where: Path, digest: str) -> list[str] | None:
        """Against the template hash that build_rag_data noted for the domain."""
        metrics = _read(self.root / "reports" / where.parts[1] / "build_rag_data" / "metrics.json")
        if "template_hash" not in metrics:
            return None
        expected = metrics["template_hash"]
        ok = digest == expected
        return [] if ok else [f"{where}: prompt_hash {digest[:SHORT]}, the data were rendered with {expected[:SHORT]}"]

    def _data(self, where: Path, name: str, digest: str) -> list[str] | None:
        """Against the files of this name in what the adapter's stage was run on."""
        stage = producer(self.lock, where.as_posix())
        deps = [self.root / dep.path for dep in stage.deps if dep.path.startswith("data/")] if stage else []
        files = [file for dep in deps for file in ([dep] if dep.name == name else sorted(dep.rglob(name)))]
        found = [file for file in files if file.is_file()]
        if not found:
            return None
        if any(sha256_file(file) == digest for file in found):
            return []
        return [f"{where}: trained on another {name} ({digest[:SHORT]}) than {found[0].relative_to(self.root)}"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check(findings: Findings) -> None:
    """Raises DataError naming every problem."""
    if findings.problems:
        listed = "\n".join(f"  {problem}" for problem in dict.fromkeys(findings.problems))
        raise DataError(
            f"{len(findings.problems)} things are not what they were when they were made:\n{listed}\n"
            "`dvc checkout --force PATH` brings back an output, `dvc repro` makes it again; another domain's, after\n"
            "`python -m stages.compose domain=NAME`"
        )
