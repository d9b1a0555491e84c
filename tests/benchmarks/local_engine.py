"""What it is worth that concurrent requests share forward passes: the local engine against one request after another.

    python tests/benchmarks/local_engine.py

Needs the demo's models (`dvc repro evaluate`). Two loads, decoded greedily: the test questions with their documents for
the tuned model, and long continuations by the book model. Each is written one by one, by the engine for 16 clients
that ask again as soon as they are answered (as it is shipped, and without keeping what it read), by the engine for one
client, and by transformers' own generate in static batches of 16; in turns, several times, in one process. Every
engine begins with nothing read. Then conversations: how long the first and the second turn's first token take.
Writes reports/bench/local_engine.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import yaml
from pipeline import ROOT, commit, hardware

from stages.core.config import parse_section
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.generation.decoding import stop_token_ids, stream
from stages.prompts.renderer import Turn
from stages.serving.answering import Config
from stages.serving.local_engine import LocalEngine
from stages.serving.models import Models

NUM_CLIENTS, NUM_CONVERSATIONS, AIM = 16, 24, 3.0
Texts = list[str]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Load:
    """Prompts for a model."""

    name: str
    model: str
    prompts: list[list[int]]
    max_new_tokens: int


def loads(models: Models, num_prompts: int) -> list[Load]:
    rows = read_jsonl(ROOT / "data/demo/rag/test.jsonl")[:num_prompts]
    renderer = models.load("tuned").renderer
    grounded = [renderer.prompt_ids(renderer.messages(row["question"], row["documents"])) for row in rows]
    plain = [renderer.tokenizer(row["documents"][0][:80])["input_ids"] for row in rows if row["documents"]]
    return [Load("answers from documents", "tuned", grounded, 64), Load("long texts", "book", plain, 200)]


def one_by_one(models: Models, load: Load) -> Texts:
    with models.use(load.model) as loaded:
        return [
            "".join(stream(loaded.network, loaded.tokenizer, prompt, load.max_new_tokens)) for prompt in load.prompts
        ]


def by_engine(models: Models, load: Load, num_clients: int = NUM_CLIENTS, **settings: int) -> Texts:
    texts = [""] * len(load.prompts)

    async def clients() -> None:
        engine, todo = LocalEngine(models, max_batch_size=num_clients, **settings), deque(enumerate(load.prompts))

        async def client() -> None:
            while todo:
                number, prompt = todo.popleft()
                pieces = engine.stream(load.model, prompt, load.max_new_tokens)
                texts[number] = "".join([piece.text async for piece in pieces])

        await asyncio.gather(*(client() for _ in range(num_clients)))
        await engine.close()

    asyncio.run(clients())
    return texts


def static_batches(models: Models, load: Load) -> Texts:
    import torch

    texts: Texts = []
    with models.use(load.model) as loaded, torch.inference_mode():
        tokenizer, stops = loaded.tokenizer, sorted(stop_token_ids(loaded.network, loaded.tokenizer))
        for start in range(0, len(load.prompts), NUM_CLIENTS):
            prompts = load.prompts[start : start + NUM_CLIENTS]
            width = max(map(len, prompts))
            written = loaded.network.generate(
                input_ids=torch.tensor([[stops[0]] * (width - len(prompt)) + prompt for prompt in prompts]),
                attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
                max_new_tokens=load.max_new_tokens,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
            texts += tokenizer.batch_decode(
                written[:, width:], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
    return texts


WAYS: dict[str, Callable[[Models, Load], Texts]] = {
    "one by one (`stream`)": one_by_one,
    f"local engine, {NUM_CLIENTS} clients": by_engine,
    f"local engine, {NUM_CLIENTS} clients, nothing kept of prompts": partial(by_engine, prefix_cache_bytes=0),
    "local engine, 1 client": partial(by_engine, num_clients=1),
    f"transformers' generate, static batches of {NUM_CLIENTS}": static_batches,
}


def alone(work: Callable[[], Result]) -> Result:
    """In a thread that ends: as soon as two threads of a process have OpenMP threads of their own, all of them sleep
    at each barrier instead of spinning (libgomp: more threads than cores), and whoever comes second is slower."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def measure(models: Models, load: Load, num_rounds: int) -> list[str]:
    """A row for each way: medians over the rounds, and ratios within each round."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    texts: dict[str, Texts] = {}
    first_calls = Load(load.name, load.model, load.prompts[:2], 4)  # what happens then only is not timed
    for way in WAYS.values():
        alone(partial(way, models, first_calls))
    for _ in range(num_rounds):
        for name, way in WAYS.items():
            start_s = time.perf_counter()
            texts[name] = alone(partial(way, models, load))
            times[name].append(time.perf_counter() - start_s)
    first = next(iter(WAYS))
    tokenizer = models.load(load.model).tokenizer
    num_tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts[first])
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(one / own for one, own in zip(times[first], taken, strict=True))
        num_equal = sum(a == b for a, b in zip(texts[first], texts[name], strict=True))
        speed = num_tokens / statistics.median(taken)
        rows.append(f"| {load.name} | {name} | {speed:,.0f} | {ratio:.2f} | {num_equal} of {len(texts[first])} |")
    return rows


def first_tokens(models: Models, num_conversations: int, **settings: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token of the first and of the second turn, whose documents are the same."""
    rows = [row for row in read_jsonl(ROOT / "data/demo/rag/test.jsonl") if row["documents"]][: num_conversations + 1]
    renderer = models.load("tuned").renderer
    taken: tuple[list[float], list[float]] = [], []

    async def talk() -> None:
        engine = LocalEngine(models, **settings)
        for row, other in pairwise(rows):
            turns: list[Turn] = []
            for place, question in enumerate((row["question"], other["question"])):
                prompt = renderer.prompt_ids(renderer.messages(question, row["documents"], turns))
                start_s, text = time.perf_counter(), ""
                async for piece in engine.stream("tuned", prompt, 64):
                    if not text:
                        taken[place].append(time.perf_counter() - start_s)
                    text += piece.text
                turns.append(Turn(question, text))
        await engine.close()

    asyncio.run(talk())
    return taken


def conversations(models: Models, num: int, num_rounds: int) -> list[str]:
    """A row for each way: medians in milliseconds."""
    ways: dict[str, dict[str, int]] = {"as shipped": {}, "nothing kept of prompts": {"prefix_cache_bytes": 0}}
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for _ in range(num_rounds):
        for name, settings in ways.items():
            for all_of, new in zip(taken[name], first_tokens(models, num, **settings), strict=True):
                all_of += new
    return [
        f"| {name} | {1000 * statistics.median(first):.1f} | {1000 * statistics.median(second):.1f} |"
        for name, (first, second) in taken.items()
    ]


def report(rows: list[str], talks: list[str], described: list[str], num_rounds: int, busy: float) -> str:
    """The rows as Markdown. busy: load of the machine before the first measurement."""
    return "\n".join(
        [
            "# The local engine: concurrent requests share forward passes",
            "",
            f"`python tests/benchmarks/local_engine.py` at commit {commit()}, {hardware()}.",
            f"Load of the machine before: {busy:.1f}. Medians of {num_rounds} rounds, ratios within each round.",
            "",
            *(f"- {text}" for text in described),
            f"- aim: at least {AIM:.0f} times the tokens of one by one, and equal text",
            "",
            "| load | way | tokens/s | times one by one | equal text |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Conversations of two turns with the same documents, one after the other ({NUM_CONVERSATIONS} of them, "
            f"{num_rounds} rounds), `tuned`:",
            "",
            "| local engine | first token of the first turn, ms (median) | of the second |",
            "|---|---|---|",
            *talks,
            "",
        ]
    )


def described(load: Load) -> str:
    median = statistics.median(map(len, load.prompts))
    return (
        f"{load.name}: {len(load.prompts)} prompts of {median:.0f} tokens (median) for `{load.model}`, "
        f"at most {load.max_new_tokens} new tokens"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-prompts", type=int, default=64)
    parser.add_argument("--num-rounds", type=int, default=3)
    options = parser.parse_args()
    section: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["chat"]
    config = parse_section(Config, section, "chat")
    models = Models(Workspace(), config.model, config.prompt, "demo")
    busy, found = os.getloadavg()[0], alone(partial(loads, models, options.num_prompts))
    rows = [row for load in found for row in measure(models, load, options.num_rounds)]
    talks = alone(partial(conversations, models, NUM_CONVERSATIONS, options.num_rounds))
    text = report(rows, talks, list(map(described, found)), options.num_rounds, busy)
    (ROOT / "reports/bench/local_engine.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
