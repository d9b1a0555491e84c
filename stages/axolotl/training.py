"""Supervised training of a LoRA adapter through axolotl: what train_lora does through trl, with the same result.

    with train_with_axolotl(base, tokenizer, rows, eval_rows, lora, training, config.axolotl, ...) as trained:
        write_results(workspace, trained, origin, adapter, report, metrics)

Beside the adapter, `trained.save` leaves the folder axolotl/ with the rows and the YAML that `axolotl train` takes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from stages.axolotl import checked_train, rendering
from stages.axolotl.curve import CurveBuilder
from stages.axolotl.environment import child_environment, python_of, venv_folder, venv_versions
from stages.axolotl.rendering import Job, Places
from stages.axolotl.runner import Run
from stages.axolotl.settings import Axolotl
from stages.core import schema
from stages.core.atomic import write_text
from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint
from stages.core.progress import track
from stages.core.workspace import Workspace
from stages.training import checkpoints
from stages.training.curves import write_curve
from stages.training.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, copy_adapter
from stages.training.objective import NextToken, TokenRow
from stages.training.results import Origin
from stages.training.sft import Trained, check_rows

BUNDLE = "axolotl"  # in the adapter's folder
LOG, PROGRESS, OUTPUT, LIVE_CURVE = "train.log", "progress.jsonl", "output", "curve.csv"


@dataclass(frozen=True)
class AxolotlTrained(Trained):
    """A finished training; `model` is None: the adapter is a file. versions: of the libraries that made it."""

    versions: dict[str, str] = field(default_factory=dict)
    bundle: Path = Path()

    def save(self, folder: Path) -> None:
        """Writes the adapter in PEFT's format, and axolotl/: the rows and the YAML to train it by hand."""
        copy_adapter(self.checkpoint, folder)
        shutil.copytree(self.bundle, folder / BUNDLE)


@dataclass(frozen=True)
class AxolotlOrigin(Origin):
    """What an adapter was made from, with the versions of axolotl's environment instead of ours.

    quantise: on the base in 4 bits, which a merge must know.
    """

    axolotl_versions: dict[str, str]
    quantise: bool = False

    def note(self) -> dict[str, Any]:
        return super().note() | {"versions": self.axolotl_versions, "quantise": self.quantise}


@contextmanager
def train_with_axolotl(
    base: Path,
    tokenizer: Any,
    train_rows: Sequence[TokenRow],
    eval_rows: Sequence[TokenRow],
    lora: schema.Lora,
    training: schema.Training,
    settings: Axolotl,
    *,
    seed: int,
    base_sha256: str,
    checkpoint_root: Path,
    root: Path,
    by_hand: Places,
) -> Iterator[AxolotlTrained]:
    """Trains an adapter on the model folder `base`; the checkpoints go when the block succeeds.

    root: the repository, where settings.venv lies. by_hand: the places in the YAML that is left with the adapter.
    Killed and called again, it goes on from the last complete checkpoint. The evaluation loss is axolotl's: a mean over
    batches of means over tokens, where trl's path has the mean over all tokens.
    Raises ConfigError for a missing or untested axolotl, and for settings that it does not know; DataError for unusable
    rows, a NaN loss, a run that fails, hangs or leaves no adapter, or another process at the same training.
    """
    versions = venv_versions(settings, root)
    check_rows(train_rows, training.max_length, "training", NextToken())
    check_rows(eval_rows, training.max_length, "evaluation", NextToken())
    pad_token = "" if tokenizer.pad_token else tokenizer.eos_token
    job = Job(settings, lora, training, seed, len(train_rows), pad_token)
    key = fingerprint(
        *(rendering.render(job, Places("", "", "")), settings.device, training.num_threads, base_sha256, versions),
        *([asdict(row) for row in rows] for rows in (train_rows, eval_rows)),
    )
    folder = checkpoint_root.resolve() / key[:32]
    with checkpoints.locked(folder):
        rendering.write_bundle(folder / BUNDLE, job, by_hand, train_rows, eval_rows)
        config = folder / rendering.CONFIG  # the same but for the places, which are absolute here
        places = Places(str(base.resolve()), str(folder / BUNDLE), str(folder / OUTPUT))
        write_text(config, rendering.as_yaml(rendering.render(job, places)))
        curve = _train(job, folder, venv_folder(settings, root), sum(len(row.input_ids) for row in train_rows))
        _require_all_labels(train_rows, curve)
        figures = _figures(curve, folder / OUTPUT)
        yield AxolotlTrained(None, curve.rows, folder / OUTPUT, figures, versions, folder / BUNDLE)
    checkpoints.discard(folder)


def by_hand_places(workspace: Workspace, base: Path, adapter: str) -> Places:
    """Where the YAML beside `adapter` (relative to the outputs) reads and writes, as seen from the repository."""

    def seen(path: Path) -> str:
        return str(path.relative_to(workspace.inputs) if path.is_relative_to(workspace.inputs) else path)

    folder = workspace.outputs / adapter
    return Places(seen(base), seen(folder / BUNDLE), f"runs/axolotl/{folder.name}")


def _train(job: Job, folder: Path, venv: Path, num_tokens: int) -> CurveBuilder:
    """Runs axolotl in `folder` up to its adapter. num_tokens: of all training rows."""
    step = _last_complete(folder / OUTPUT)
    earlier = _keep_records(folder / PROGRESS, step)
    curve = CurveBuilder(num_tokens / job.num_steps_per_epoch)
    for record in earlier:
        curve.add(record)
    (folder / OUTPUT / ADAPTER_WEIGHTS).unlink(missing_ok=True)  # an earlier attempt's would pass for this one's
    script = str(Path(checked_train.__file__).resolve())
    command = [str(python_of(venv)), "-P", script, str(folder / rendering.CONFIG), str(folder / PROGRESS)]
    command += [str(checkpoints.checkpoint_path(folder / OUTPUT, step))] if step else []
    environment = child_environment(venv, job.settings.device, job.training.num_threads)
    run = Run(command, environment, folder / LOG, folder / PROGRESS, job.settings.silence_timeout_s)
    with closing(run.records()) as records:  # whatever happens here, its process ends
        for record in _steps_shown(records, job.num_steps - step):
            if curve.add(record) is not None:
                write_curve(folder / LIVE_CURVE, curve.rows)
    _require_adapter(folder, curve)
    return curve


def _steps_shown(records: Iterable[dict[str, Any]], num_steps: int) -> Iterator[dict[str, Any]]:
    """The records, with a bar that counts those of steps."""
    waiting: list[dict[str, Any]] = []

    def steps() -> Iterator[None]:
        for record in records:
            waiting.append(record)
            if "loss" in record:
                yield

    for _ in track(steps(), "axolotl", total=num_steps):
        yield from waiting
        waiting.clear()
    yield from waiting


def _last_complete(output: Path) -> int:
    """The step of the newest checkpoint whose trainer_state.json, the last file of all, is whole; broken ones go."""
    for step in checkpoints.steps_on_disk(output):
        path = checkpoints.checkpoint_path(output, step)
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            if state["global_step"] == step:
                return step
        except (FileNotFoundError, json.JSONDecodeError):
            pass
        shutil.rmtree(path)
    return 0


def _keep_records(progress: Path, step: int) -> list[dict[str, Any]]:
    """The records of earlier attempts up to the checkpoint that training goes on from; the file keeps no others."""
    lines = progress.read_text(encoding="utf-8").splitlines(keepends=True) if progress.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]  # a killed writer leaves half a line
    kept = [record for record in records if record["step"] <= step and record["event"] != "end"] if step else []
    write_text(progress, "".join(json.dumps(record) + "\n" for record in kept))
    return kept


def _require_adapter(folder: Path, curve: CurveBuilder) -> None:
    missing = [name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) if not (folder / OUTPUT / name).is_file()]
    if missing or not curve.rows or not curve.best_step:
        what = ", ".join(missing) or "record of an evaluation"
        raise DataError(f"axolotl ended with exit code 0 but left no {what} in {folder / OUTPUT}; see {folder / LOG}")


def _require_all_labels(rows: Sequence[TokenRow], curve: CurveBuilder) -> None:
    """Raises DataError where axolotl has trained other labels than it was given: it drops rows for many reasons."""
    epoch = curve.rows[-1].epoch
    expected = round(epoch * sum(row.num_trained for row in rows))
    if epoch.is_integer() and curve.num_trained != expected:
        raise DataError(f"axolotl trained {curve.num_trained} tokens with a label, in the rows there are {expected}")


def _figures(curve: CurveBuilder, output: Path) -> dict[str, float]:
    """The figures that the trl path has (sft.Trained)."""
    last = curve.rows[-1]
    return {
        "best_eval_loss": curve.best_row.eval_loss,
        "best_epoch": curve.best_row.epoch,
        "num_epochs_run": last.epoch,
        "num_steps": last.step,
        "num_train_tokens": round(curve.tokens_per_step * last.step),
        "num_trainable_parameters": _num_parameters(output / ADAPTER_WEIGHTS),
    }


def _num_parameters(weights: Path) -> int:
    """From the header alone (https://huggingface.co/docs/safetensors: its length, then JSON)."""
    with open(weights, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
