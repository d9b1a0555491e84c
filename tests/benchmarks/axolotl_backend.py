"""The two backends on the same rows of the tiny base: how near their losses are, and what driving axolotl costs.

    make axolotl && python tests/benchmarks/axolotl_backend.py

Needs models/base/tiny. Trains docstrings of the standard library through trl, through our axolotl runner, and by
`python -m axolotl.cli.train` on the YAML that was left behind; writes reports/bench/axolotl.md. All losses are measured
here, on all evaluation tokens: axolotl's own evaluation is a mean over batches. What the runner adds is counted in CPU
seconds, ours and the child's together: wall time depends on what else the machine does.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from stages.axolotl.environment import child_environment, python_of, venv_folder, venv_versions
from stages.axolotl.rendering import Places
from stages.axolotl.settings import Axolotl
from stages.axolotl.training import train_with_axolotl
from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.process import quiet_environment
from stages.core.schema import Lora, Model, Training
from stages.core.workspace import ROOT, Workspace
from stages.evaluation.markdown import table
from stages.generation.loading import load_model, load_tokenizer, resolve_base
from stages.generation.perplexity import token_ids, unrelated_texts
from stages.training.objective import NextToken, TokenRow
from stages.training.sft import train_lora

MODEL = Model(name="tiny", kind="build", max_context_tokens=1024)
LORA = Lora(r=16, alpha=32, modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
TRAINING = Training(learning_rate=2e-3, num_epochs=3, batch_size=8, max_length=256, warmup_steps=5, num_threads=1)
SEED, NUM_EVAL, REPEATS = 13, 24, 2


def clocks() -> tuple[float, float]:
    """(wall time, CPU time of this process and of its children that have ended), seconds."""
    times = os.times()
    return times.elapsed, times.user + times.system + times.children_user + times.children_system


def since(start: tuple[float, float]) -> dict[str, float]:
    now = clocks()
    return {"wall s": now[0] - start[0], "CPU s": now[1] - start[1]}


def least(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Of each the less: the rest is other people's noise."""
    return {name: min(one[name], other.get(name, one[name])) for name in one}


def rows_of(tokenizer: Any) -> list[TokenRow]:
    """Each text's first 96 tokens as the prompt, up to 128 more to learn."""
    ids = [token_ids(tokenizer, text) for text in unrelated_texts(num_chars=400_000)]
    return [TokenRow(str(n), row[:224], len(row[:224]) - 96) for n, row in enumerate(ids) if len(row) > 112]


def eval_loss(base: Path, adapter: Path, rows: list[TokenRow]) -> float:
    """Mean over all trained tokens of the rows."""
    import torch

    model, objective = load_model(base, MODEL, adapter), NextToken()
    with torch.no_grad():
        parts = [
            objective.parts(model, objective.collate([{"input_ids": r.input_ids, "labels": r.labels}])) for r in rows
        ]
    total = sum(float(part["token"].total) for part in parts)
    return total / sum(int(part["token"].num_items) for part in parts)


def measure(settings: Axolotl, work: Path) -> list[dict[str, Any]]:
    """One row a backend."""
    base = resolve_base(Workspace(), MODEL)
    tokenizer = load_tokenizer(base)
    rows = rows_of(tokenizer)
    train_rows, eval_rows = rows[NUM_EVAL:], rows[:NUM_EVAL]
    adapters: dict[str, Path] = {name: work / name for name in ("trl", "axolotl")}
    common: dict[str, Any] = {"seed": SEED, "base_sha256": "", "checkpoint_root": work / "checkpoints"}
    places = Places(str(base), str(adapters["axolotl"] / "axolotl"), str(work / "by_hand"))
    results: dict[str, dict[str, Any]] = {}
    bare_times: dict[str, float] = {}
    for name in ("trl", *["axolotl"] * REPEATS):
        start = clocks()
        context = (
            train_lora(load_model(base, MODEL), tokenizer, train_rows, eval_rows, LORA, TRAINING, **common)
            if name == "trl"
            else train_with_axolotl(
                *(base, tokenizer, train_rows, eval_rows, LORA, TRAINING, settings), **common, root=ROOT, by_hand=places
            )
        )
        shutil.rmtree(adapters[name], ignore_errors=True)
        with context as trained:
            adapters[name].mkdir()
            trained.save(adapters[name])
        times = since(start)
        results[name] = {
            "backend": name,
            "last train loss": trained.curve[-1].train_loss,
            "eval loss": eval_loss(base, adapters[name], eval_rows),
            **least(times, results.get(name, {})),
        }
        if name == "axolotl":  # in turn with ours: the machine has other things to do, now more and now less
            bare_times = least(_bare(settings, adapters[name] / "axolotl" / "axolotl.yml", work), bare_times)
    bare = {"backend": "axolotl alone", "eval loss": eval_loss(base, work / "by_hand", eval_rows), **bare_times}
    return [*results.values(), bare]


def _bare(settings: Axolotl, config: Path, work: Path) -> dict[str, float]:
    venv = venv_folder(settings, ROOT)
    shutil.rmtree(work / "by_hand", ignore_errors=True)  # its prepared rows would save time
    start = clocks()
    with open(work / "bare.log", "wb") as log:
        subprocess.run(
            [python_of(venv), "-m", "axolotl.cli.train", config],
            env=child_environment(venv, settings.device, TRAINING.num_threads),
            stdout=log,
            stderr=log,
            check=True,
        )
    return since(start)


COLUMNS = ("backend", "last train loss", "eval loss", "wall s", "CPU s")


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measures and writes the table."""
    quiet_environment()
    profile = yaml.safe_load((ROOT / "conf/axolotl/cpu.yaml").read_text(encoding="utf-8"))["axolotl"]
    settings = parse_section(Axolotl, profile, "axolotl")
    versions = ", ".join(f"{name} {version}" for name, version in venv_versions(settings, ROOT).items())
    with TemporaryDirectory() as work:
        rows = measure(settings, Path(work))
    trl, ours, bare = rows
    distance = abs(ours["eval loss"] / trl["eval loss"] - 1)
    text = (
        "# axolotl against trl, on the tiny base\n\n"
        f"`python tests/benchmarks/axolotl_backend.py`; {platform.machine()}, {TRAINING.num_threads} thread; {versions}.\n"
        f"The same rows, LoRA rank {LORA.r}, {TRAINING.num_epochs} epochs.\n\n"
        + table(COLUMNS, [[_cell(row.get(column, "")) for column in COLUMNS] for row in rows])
        + f"\n\nEvaluation losses differ by {distance:.2%}; the runner adds {ours['CPU s'] - bare['CPU s']:.1f} CPU seconds.\n"
    )
    write_text(ROOT / "reports/bench/axolotl.md", text)
    print(text)


if __name__ == "__main__":
    main()
