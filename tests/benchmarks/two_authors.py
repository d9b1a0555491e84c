"""Two authors of one language, each learned in turn: an adapter gains more on its own author than on the other.

    python tests/benchmarks/two_authors.py verne=verne.txt wells=war_of_the_worlds.epub,time_machine.html

Needs models/base/tiny. The books are read by the readers of `ingest`, prepared by prepare_style, trained on by
train_style, and measured as `groundtune compare` does it: bits per byte of held-out passages below the base's, on the
author's own and on the other's, passage by passage. Writes reports/bench/two_authors.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import OmegaConf
from pipeline import commit, hardware

from stages import prepare_style, train_style
from stages.compose import compose
from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.ledger import Ledger
from stages.core.process import quiet_environment
from stages.core.stage import with_variant
from stages.core.workspace import ROOT, Workspace
from stages.documents.formats import read_document
from stages.evaluation.markdown import estimate, table
from stages.serving.answering import Config as ChatConfig
from stages.serving.compare_measures import Measures, measure
from stages.serving.compare_models import run_model
from stages.serving.compare_prompts import AuthorText, read_author, read_prompts, spread
from stages.serving.models import Models

MAX_CHARS = 10_000_000
NUM_WORDS, NUM_EPOCHS = 30_000, 2
PUBLISHER = "Gutenberg"  # paragraphs with this word are not the author's
NUM_PROMPTS, NUM_NEW_TOKENS, BATCH = 16, 96, 8
HEADER = ["learned", "passages: learned, held out, of the other", "gain on the author", "gain on the other"]
HEADER += ["the first less the second", "style distance: base", "tuned", "training s"]


def write_samples(books: list[Path], folder: Path) -> int:
    """The first NUM_WORDS in paragraphs of the books, as one file; their number."""
    blocks = (block for book in books for block in read_document(book, MAX_CHARS).blocks if block.kind == "paragraph")
    kept: list[str] = []
    num_words = 0
    for block in blocks:
        if PUBLISHER not in block.text and num_words < NUM_WORDS:
            kept.append(block.text)
            num_words += len(block.text.split())
    write_text(folder / "samples.txt", "\n\n".join(kept))
    return num_words


def settings(authors: dict[str, Path]) -> Any:
    """params.yaml as it would be with these writers."""
    overrides = ["train_style.base=models/base/${model.name}", f"train_style.training.num_epochs={NUM_EPOCHS}"]
    for name, samples in authors.items():
        overrides += [
            f"+prepare_style.variants.{name}.samples={samples}",
            f"+train_style.variants.{name}.data=style/{name}",
        ]
    return OmegaConf.to_container(compose(overrides))


def run_stage(stage: Any, params: Any, variant: str, workspace: Workspace) -> float:
    """Runs a stage's variant; seconds."""
    name = stage.__name__.rsplit(".", 1)[-1]
    start_s = time.perf_counter()
    stage.run(parse_section(stage.Config, with_variant(params[name], variant, name), name), workspace)
    return time.perf_counter() - start_s


def compared(params: Any, workspace: Workspace, author: str) -> tuple[Measures, AuthorText]:
    """The author's adapter against the base, on prompts of his held-out passages."""
    config = parse_section(ChatConfig, params["chat"], "chat")
    text = read_author(workspace, config.domain, author, [])
    assert text is not None
    held_out = workspace.read(f"data/{config.domain}/style/{author}/validation.jsonl")
    prompts = [replace(p, any_system=True) for p in spread(read_prompts(held_out, Ledger(author)), NUM_PROMPTS)]
    models = Models(workspace, config.model, config.prompt, config.domain, config.styles)
    runs = [run_model(models, name, prompts, text, NUM_NEW_TOKENS, BATCH) for name in ("base", author)]
    return measure(runs, prompts, text, params["seed"]), text


def row(measures: Measures, text: AuthorText, train_s: float) -> list[str]:
    """What the report says of one author."""
    base, tuned = measures.models["base"], measures.models[text.name]
    return [
        text.name,
        f"{len(text.training)}, {len(text.held_out)}, {len(text.all_others)}",
        *(estimate(tuned[key], 3) for key in ("own_gain", "other_gain", "own_less_other")),
        *(f"{found['style_distance'].value:.3f}" for found in (base, tuned)),
        f"{train_s:.0f}",
    ]


def main() -> None:
    """Prepares both, trains both, measures both, writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("authors", nargs=2, metavar="NAME=BOOK,...", help="one author's books")
    books = {name: files.split(",") for name, _, files in (item.partition("=") for item in parser.parse_args().authors)}
    quiet_environment()
    revision = commit()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        workspace = Workspace(work, work)
        workspace.write("models/base").symlink_to(ROOT / "models/base")
        num_words = {name: write_samples(list(map(Path, files)), work / name) for name, files in books.items()}
        params = settings({name: work / name for name in books})
        for name in books:
            run_stage(prepare_style, params, name, workspace)
        train_s = {name: run_stage(train_style, params, name, workspace) for name in books}
        rows = [row(*compared(params, workspace, name), train_s[name]) for name in books]
    training = params["train_style"]["training"]
    command = " ".join(f"{name}={','.join(Path(file).name for file in files)}" for name, files in books.items())
    sizes = ", ".join(f"{name} {count:,} words" for name, count in num_words.items())
    text = (
        "# Two authors of one language, each learned in turn\n\n"
        f"`python tests/benchmarks/two_authors.py {command}` at commit {revision}, {hardware()}; "
        f"base {params['model']['name']}, LoRA rank {params['train_style']['lora']['r']}, {training['num_epochs']} "
        f"epochs, learning rate {training['learning_rate']}; {sizes}.\n\n"
        + table(HEADER, rows)
        + "\n\nGains: bits per byte of held-out passages below the base's, without a prompt; 95 % intervals over "
        "passages. The style distance of greedy answers is from the author's held-out text.\n"
    )
    write_text(ROOT / "reports/bench/two_authors.md", text)
    print(text)


if __name__ == "__main__":
    main()
