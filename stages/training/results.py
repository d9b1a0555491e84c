"""What every adapter stage leaves behind: the adapter with its note, the curve, the metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages.core import schema
from stages.core.atomic import new_folder, write_json
from stages.core.fingerprint import sha256_file
from stages.core.workspace import Workspace
from stages.generation.loading import write_adapter_note
from stages.training.curves import write_curve
from stages.training.lora import versions
from stages.training.sft import Trained


@dataclass(frozen=True)
class Origin:
    """What an adapter was made from.

    prompt_hash: "" where it was trained on plain text. prompt: one of its own, which goes with it, instead of the
    domain's. base: the folder of the model it is for, as the configuration has it; "": what its stage always takes.
    """

    model: schema.Model
    base_sha256: str
    prompt_hash: str
    data: list[Path]
    lora: schema.Lora
    training: schema.Training
    seed: int
    prompt: schema.Prompt | None = field(default=None, kw_only=True)
    base: str = field(default="", kw_only=True)

    def note(self) -> dict[str, Any]:
        """The content of adapter.json: hashes and settings, no paths, no times."""
        return {
            "model": self.model.name,
            "base_sha256": self.base_sha256,
            "prompt_hash": self.prompt_hash,
            "data_sha256": {path.name: sha256_file(path) for path in self.data},
            "lora": asdict(self.lora),
            "training": asdict(self.training),
            "seed": self.seed,
            "versions": versions(),
            **({"prompt": asdict(self.prompt)} if self.prompt else {}),
            **({"base": self.base} if self.base else {}),
        }


def write_results(
    workspace: Workspace, trained: Trained, origin: Origin, adapter: str, report: str, metrics: dict[str, Any]
) -> None:
    """Writes the adapter folder, and metrics.json and curve.csv in the report folder (both relative)."""
    with new_folder(workspace.write(adapter)) as folder:
        trained.save(folder)
        write_adapter_note(folder, origin.note())
    write_curve(workspace.write(f"{report}/curve.csv"), trained.curve)
    write_json(workspace.write(f"{report}/metrics.json"), {**trained.figures, **metrics})
