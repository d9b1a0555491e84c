"""Questions and answers about chunks, written by a language model, filtered, and reviewed by people.

reads   data/<domain>/knowledge.sqlite; <curation_dir>/reviews.jsonl; a model: behind a URL, or the base in this process
writes  data/<domain>/sft/qa.jsonl          what is trained on, by `take`
        data/<domain>/sft/pairs.jsonl       every pair that passed the filters: state, model, prompt hash
        data/<domain>/sft/questions.jsonl   {"id": <chunk>, "questions": [...]}: potential questions
        data/<domain>/sft/rejected.jsonl    every other pair asked for, with the reason
        data/<domain>/sft/orphaned_reviews.jsonl    decisions about pairs that are no longer written
        reports/<domain>/generate_sft/metrics.json

Without styles and potential questions the files are empty. Answers are kept in .cache/requests: after a kill, or a
server that went down, a rerun asks only for what is missing.

    python -m stages.generate_sft
    python -m stages.generate_sft --preview 5        five pairs with their chunks, before anything else is asked for
    python -m stages.generate_sft generate_sft.pairs_per_chunk=3
    python -m stages.compose engine=ray              the base writes in workers on Ray; see conf/engine
    groundtune sft review                            decide about the pairs
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

from omegaconf import MISSING

from stages.core import schema
from stages.core.atomic import write_json
from stages.core.engine import Engine
from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import read_chunks
from stages.synthetic import writers
from stages.synthetic.drafts import Draft
from stages.synthetic.filters import Judge
from stages.synthetic.languages import find_language
from stages.synthetic.plan import POTENTIAL_QUESTIONS, Task, in_turns, plan
from stages.synthetic.reviews import REVIEWS, STATES, TAKEN, Pair, Review, read_reviews, reviewed, to_pair
from stages.synthetic.settings import METHODS, Filters, Local, Provider, Style, Wording
from stages.synthetic.writers import Usage

PREVIEW = "--preview"


@dataclass
class Config:
    """Mirrors conf/generate_sft."""

    domain: str = MISSING
    language: str = MISSING  # of the pairs; others are rejected
    audience: str = MISSING
    curation_dir: str = MISSING
    seed: int = MISSING
    model: schema.Model = MISSING
    prompt: schema.Prompt = MISSING
    method: str = MISSING  # instruct | continue_chat; of provider local, as a server is always asked
    styles: dict[str, Style] = field(default_factory=dict)
    pairs_per_chunk: int = MISSING  # of each style
    potential_questions: int = MISSING  # of each chunk
    limit: int = MISSING  # pairs in all; 0: no limit
    preview: int = 0  # ask for so many pairs, print them and stop; --preview sets it
    take: str = MISSING  # accepted | passed
    wording: Wording = MISSING
    provider: Provider = MISSING
    local: Local = MISSING
    filters: Filters = MISSING
    engine: Engine = field(default_factory=Engine)  # where the base itself writes, with provider local

    def __post_init__(self) -> None:
        schema.one_of(self.method, METHODS, "method")
        schema.one_of(self.take, tuple(TAKEN), "take")
        if self.pairs_per_chunk < 1 or self.potential_questions < 0 or self.limit < 0 or self.preview < 0:
            raise ValueError("pairs_per_chunk is at least 1; potential_questions, limit and preview are not negative")
        if POTENTIAL_QUESTIONS in self.styles:
            raise ValueError(f"styles: {POTENTIAL_QUESTIONS} is the name of something else")
        unframed = [name for name, style in self.styles.items() if not style.frame_answer]
        if unframed and self.provider.kind == "local" and self.method == "continue_chat":
            raise ValueError(
                f"styles: {', '.join(unframed)} needs a model that follows instructions: another provider, or a model "
                "with method instruct"
            )


def run(config: Config, workspace: Workspace) -> None:
    """Asks, filters, applies the reviews, writes."""
    find_language(config.language)
    tasks = _tasks(config, workspace)
    if config.preview:
        _preview(config, workspace, tasks)
        return
    drafts, usage = _write_and_judge(config, workspace, tasks)
    pairs, orphaned = _pairs(config, workspace, drafts)
    ledger = _ledger(drafts)
    metrics = _metrics(config, drafts, pairs, usage, ledger) | {"num_orphaned_reviews": len(orphaned)}
    _write(config, workspace, drafts, pairs, orphaned)
    write_json(workspace.write(f"reports/{config.domain}/generate_sft/metrics.json"), metrics)
    if drafts:  # after writing, so that the reasons can be looked at
        _check(ledger)
    _tell(config, pairs, orphaned)


def _tasks(config: Config, workspace: Workspace) -> list[Task]:
    """Pairs first, so that a preview shows pairs."""
    if not (config.styles or config.potential_questions):
        return []
    knowledge = workspace.read(f"data/{config.domain}/knowledge.sqlite")
    chunks = [chunk for chunk in read_chunks(knowledge) if chunk.text.strip()]
    tasks = plan(chunks, list(config.styles), config.pairs_per_chunk, config.limit, config.seed)
    if config.potential_questions:
        order = in_turns(chunks, config.seed)
        tasks += [Task(chunk, POTENTIAL_QUESTIONS, config.potential_questions) for chunk in order]
    return tasks


def _write_and_judge(config: Config, workspace: Workspace, tasks: Sequence[Task]) -> tuple[list[Draft], Usage]:
    drafts, usage = writers.write(config, tasks, workspace)
    return Judge(config.filters, config.styles, config.language, config.prompt.abstain)(drafts), usage


def _pairs(config: Config, workspace: Workspace, drafts: Sequence[Draft]) -> tuple[list[Pair], list[Review]]:
    """The pairs that passed, with what was decided about them, and decisions about others."""
    hashes = writers.prompt_hashes(config)
    model = writers.model_name(config.provider, config.model)
    passed = [draft for draft in drafts if not draft.reason and draft.style != POTENTIAL_QUESTIONS]
    reviews = read_reviews(workspace.inputs / config.curation_dir / REVIEWS)
    return reviewed([to_pair(draft, model, hashes[draft.style]) for draft in passed], reviews)


def _preview(config: Config, workspace: Workspace, tasks: Sequence[Task]) -> None:
    """Asks for the first pairs of the plan: what is answered now is not asked for again."""
    counts = accumulate(task.count for task in tasks)
    enough = next((n for n, count in enumerate(counts, start=1) if count >= config.preview), len(tasks))
    drafts, usage = _write_and_judge(config, workspace, tasks[:enough])
    for draft in drafts[: config.preview]:
        print(_shown(draft))
    tokens = f"{usage.num_prompt_tokens} + {usage.num_completion_tokens} tokens"
    print(f"{usage.num_requests} requests, {tokens}, cost {usage.cost(config.provider):.6g}")


def _shown(draft: Draft) -> str:
    question, answer = draft.final
    lines = [
        f"--- {draft.chunk.id} ({draft.chunk.document}), {draft.style}",
        f"{draft.chunk.text.strip()}\n",
        f"Question: {question}",
        f"Answer: {answer}",
        f"Rejected: {draft.reason} ({draft.detail})" if draft.reason else "",
    ]
    # a document may hold control characters, which a terminal would obey
    return "".join(letter for letter in "\n".join(lines) if letter.isprintable() or letter in "\n\t")


def _write(
    config: Config, workspace: Workspace, drafts: Sequence[Draft], pairs: Sequence[Pair], orphaned: Sequence[Review]
) -> None:
    def path(name: str) -> Any:
        return workspace.write(f"data/{config.domain}/sft/{name}.jsonl")

    taken = [pair for pair in pairs if pair.state in TAKEN[config.take]]
    questions: dict[str, list[str]] = {}
    for draft in drafts:
        if draft.style == POTENTIAL_QUESTIONS and not draft.reason:
            questions.setdefault(draft.chunk.id, []).append(draft.question)
    write_jsonl(path("qa"), (pair.to_qa().to_row() for pair in taken))
    write_jsonl(path("pairs"), (asdict(pair) for pair in pairs))
    write_jsonl(path("questions"), ({"id": chunk, "questions": asked} for chunk, asked in questions.items()))
    write_jsonl(path("rejected"), (draft.rejection_row() for draft in drafts if draft.reason))
    write_jsonl(path("orphaned_reviews"), (asdict(review) for review in orphaned))


def _check(ledger: Ledger) -> None:
    try:
        ledger.check(ledger.num_kept)
    except DataError as error:
        raise DataError(
            f"{error}\nThe model that writes the pairs is too weak for these documents, or generate_sft.filters are "
            "too strict. Another model: `python -m stages.compose ... generate_sft/provider=ollama` (or vllm, ...)"
        ) from error


def _ledger(drafts: Sequence[Draft]) -> Ledger:
    ledger = Ledger("generate_sft", len(drafts))
    for draft in drafts:
        if draft.reason:
            ledger.reject(f"{draft.chunk.id} {draft.style} {draft.number}", draft.reason, draft.detail)
    return ledger


def _metrics(
    config: Config,
    drafts: Sequence[Draft],
    pairs: Sequence[Pair],
    usage: Usage,
    ledger: Ledger,
) -> dict[str, Any]:
    counts = ledger.metrics()
    requested = Counter(draft.style for draft in drafts)
    kept = Counter(draft.style for draft in drafts if not draft.reason)
    states = Counter(pair.state for pair in pairs)
    return {
        "num_requested": counts["num_read"],
        "num_kept": counts["num_kept"],
        "num_rejected": counts["num_rejected"],
        "rejected": counts["rejected"],
        "styles": {s: {"num_requested": requested[s], "num_kept": kept[s]} for s in sorted(requested)},
        "states": {state: states[state] for state in STATES},
        "num_taken": sum(states[state] for state in TAKEN[config.take]),
        "num_requests": usage.num_requests,
        "num_prompt_tokens": usage.num_prompt_tokens,
        "num_completion_tokens": usage.num_completion_tokens,
        "cost": usage.cost(config.provider),
    }


def _tell(config: Config, pairs: Sequence[Pair], orphaned: Sequence[Review]) -> None:
    if orphaned:
        ids = ", ".join(review.pair for review in orphaned[:5])
        print(f"{len(orphaned)} reviews are about pairs that are no longer written ({ids})", file=sys.stderr)
    if pairs and not any(pair.state in TAKEN[config.take] for pair in pairs):
        print("no pair is accepted: `groundtune sft review` decides, then run again", file=sys.stderr)


def take_preview(arguments: list[str]) -> int:
    """Takes `--preview N` out of the command line; 0 where it is not there."""
    if PREVIEW not in arguments:
        return 0
    place = arguments.index(PREVIEW)
    value = arguments[place + 1] if len(arguments) > place + 1 else ""
    if not value.isdecimal() or int(value) < 1:
        raise SystemExit(f"generate_sft: error: {PREVIEW} needs a number of pairs, such as {PREVIEW} 5")
    del arguments[place : place + 2]
    return int(value)


def main() -> None:
    """As every stage starts, and with --preview."""
    count = take_preview(sys.argv)

    def run_or_preview(config: Config, workspace: Workspace) -> None:
        run(replace(config, preview=count or config.preview), workspace)

    if count and len(sys.argv) > 1:  # Hydra composes the settings of a trial
        sys.argv.append(f"generate_sft.preview={count}")
    stage_main(Config, run_or_preview)()


if __name__ == "__main__":
    main()
