"""What reading a number costs: the tree of values in batches, against writing answers one by one.

    make bench          (or: python tests/benchmarks/regression.py)

Needs what `dvc repro evaluate_regression` builds. Reads the first test pairs with the first hybrid adapter in three
ways in the same run, and writes reports/bench/regression.md: pairs per second, and the ratio to transformers'
`generate`, one pair at a time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import commit, hardware

from stages.core.config import parse_section
from stages.core.process import quiet_environment
from stages.core.stage import load_section
from stages.core.workspace import ROOT, Workspace
from stages.evaluate_regression import Config
from stages.generation.decoding import generate
from stages.generation.loading import load_tokenizer, resolve_base
from stages.regression.adapter_switch import AdapterSwitch
from stages.regression.pair_index import read_pairs
from stages.regression.pair_prompts import PairRenderer
from stages.regression.predictor import Predictor

REPEATS = 3


def seconds(run: Callable[[], Any]) -> float:
    """The least wall time of a few runs: the rest is other people's noise."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(num_pairs: int) -> dict[str, float]:
    """Way of reading -> seconds for all pairs."""
    import torch

    config = parse_section(Config, load_section("evaluate_regression"), "evaluate_regression")
    torch.set_num_threads(config.num_threads or torch.get_num_threads())
    workspace = Workspace()
    base = resolve_base(workspace, config.model)
    tokenizer = load_tokenizer(base)
    folder = workspace.read(f"models/{config.task.name}/regression/{config.recipes[-1]}/{config.splits[0]}")
    model = AdapterSwitch(base, config.model).use(sorted(folder.glob("seed-*"))[0])
    pairs = read_pairs(workspace.read(f"data/{config.task.name}/pairs"), config.splits[0], "test", num_pairs)
    renderer = PairRenderer(config.task, tokenizer)
    prompts = [renderer.prompt_ids(pair.a, pair.b).input_ids for pair in pairs]
    ids, length = [pair.id for pair in pairs], config.max_new_tokens

    def plain() -> None:
        for prompt in prompts:
            row = torch.tensor([prompt])
            model.generate(
                input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=length, do_sample=False,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip

    predictor = Predictor(model, tokenizer, config.task, config.batch_size)
    return {
        "transformers' `generate`, one by one: greedy text": seconds(plain),
        f"ours, greedy text, {config.batch_size} at a time": seconds(
            lambda: generate(model, tokenizer, prompts, length, config.batch_size)
        ),
        f"tree of values, {config.batch_size} at a time: greedy, whole distribution": seconds(
            lambda: predictor.predict(ids, prompts)
        ),
    }


def report(times: dict[str, float], num_pairs: int, revision: str) -> str:
    slowest = next(iter(times.values()))
    rows = [f"| {name} | {num_pairs / s:.1f} | {slowest / s:.1f} |" for name, s in times.items()]
    return "\n".join(
        [
            "# What reading a number costs",
            "",
            f"`python tests/benchmarks/regression.py` at commit {revision}, {hardware()}, {num_pairs} pairs, "
            f"best of {REPEATS}.",
            "",
            "| way | pairs/s | ratio (aim >= 5) |",
            "|---|---:|---:|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    quiet_environment()
    revision = commit()
    text = report(measure(options.pairs), options.pairs, revision)
    target: Path = ROOT / "reports" / "bench" / "regression.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
