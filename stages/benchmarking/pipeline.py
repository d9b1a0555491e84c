"""6. The whole way: a question, the documents found for it, the answer. Right? From the documents? How long?

retrieved here   documents found in this process, of `kinds` only, in the prompt of training: the same for every
                 endpoint. Nobody is told the answer.
as served        an endpoint that retrieves does so itself, from records of `kinds` too, with a prompt of its own.

found            a document that holds the answer is among them
correct          the key fact (or the reference) stands in the answer
grounded         names, numbers, and most of the words of the answer stand in the documents or the question
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from stages.benchmarking.asked_questions import read_questions
from stages.benchmarking.client import Client
from stages.benchmarking.replies import ChatRequest, Reply
from stages.benchmarking.results import DISTRUSTED, Figures, Section
from stages.benchmarking.retrieval import finder_of
from stages.benchmarking.session import Session
from stages.benchmarking.settings import Config
from stages.benchmarking.speeds import quantile
from stages.core.errors import DataError
from stages.core.progress import track
from stages.core.workspace import Workspace
from stages.evaluation.answering import clusters
from stages.evaluation.answers import scores
from stages.evaluation.intervals import mean_estimate
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer
from stages.retrieval.documents import Document
from stages.synthetic.grounding import support

RETRIEVED_HERE, AS_SERVED = "retrieved here", "as served"
MIN_SUPPORT = 0.6  # of an answer's content words, as generate_sft asks of the pairs that it keeps
CACHED = "as served: a server that remembers queries does not embed again those that it was asked in 5"
BATCH = 8  # questions in a block


@dataclass(frozen=True)
class Retrieved:
    """What was found for a question in this process."""

    documents: list[Document]
    elapsed_s: float

    @property
    def ids(self) -> list[str]:
        return [record_id for document in self.documents for record_id in document.ids]

    @property
    def texts(self) -> list[str]:
        return [document.text for document in self.documents]


def measure_pipeline(session: Session, config: Config, workspace: Workspace) -> Section:
    """Every test question, one after the other, as a person asks."""
    section, chat = Section("pipeline"), config.chat
    questions = read_questions(workspace, chat.domain, config.pipeline.num_questions).questions
    finder = finder_of(config, workspace, chat.top_k, chat.max_distance, chat.num_siblings)
    retrieved = []
    for example in track(questions, "pipeline: documents"):
        start_s = time.perf_counter()
        retrieved.append(Retrieved(finder.find(example.question), time.perf_counter() - start_s))
    answers = _answers(session, config, questions, retrieved)
    for name, replies in answers.items():
        section.add(RETRIEVED_HERE, name, _figures(questions, replies, retrieved, config))
    if len(answers) == 2:
        _compare(section, questions, answers, retrieved, config)
    _add_as_served(section, session, questions, config)
    return section


def _answers(
    session: Session, config: Config, questions: Sequence[Example], retrieved: Sequence[Retrieved]
) -> dict[str, list[Reply]]:
    renderer, max_tokens = Renderer(config.chat.prompt), config.pipeline.max_tokens or config.chat.max_new_tokens
    answers: dict[str, list[Reply]] = {name: [] for name in session.names}
    for at in track(range(0, len(questions), BATCH), "pipeline"):

        def requests(client: Client, at: int = at) -> list[ChatRequest]:
            asked = zip(questions[at : at + BATCH], retrieved[at : at + BATCH], strict=True)
            return [
                ChatRequest(renderer.messages(example.question, _fitting(found.texts, client, max_tokens)), max_tokens)
                for example, found in asked
            ]

        for name, block in session.ask("pipeline", requests, 1).items():
            answers[name] += block.replies
    for name, replies in answers.items():
        if not any(reply.is_whole for reply in replies):
            raise DataError(f"pipeline: {name} answers no question: {replies[0].failure}: {replies[0].detail}")
    return answers


def _fitting(texts: list[str], client: Client, max_tokens: int) -> list[str]:
    """Without the last documents, where all of them are too long for the endpoint."""
    if limit := client.can.max_context_tokens:
        room = client.chars_of(limit * 7 // 8 - max_tokens)
        while texts and sum(map(len, texts)) > room:
            texts = texts[:-1]
    return texts


def _add_as_served(section: Section, session: Session, questions: Sequence[Example], config: Config) -> None:
    names = [name for name, client in session.clients.items() if client.can.retrieves]
    if not names:
        return
    max_tokens = config.pipeline.max_tokens or config.chat.max_new_tokens
    found: dict[str, list[Reply]] = {name: [] for name in names}
    for at in track(range(0, len(questions), BATCH), "pipeline, as served"):
        asked = [
            ChatRequest([{"role": "user", "content": example.question}], max_tokens, tuple(config.kinds))
            for example in questions[at : at + BATCH]
        ]
        for name, block in session.ask("as served", lambda client, asked=asked: asked, 1, names=names).items():  # type: ignore[misc]
            found[name] += block.replies
    for name, replies in found.items():
        section.notes.append(DISTRUSTED.format(name=name))
        if not any(reply.is_whole for reply in replies):
            section.notes.append(f"{name} as served answers no question: {replies[0].failure}: {replies[0].detail}")
            continue
        section.add(AS_SERVED, name, _figures(questions, replies, None, config))
    section.notes.append(CACHED)


def _figures(
    examples: Sequence[Example], replies: Sequence[Reply], retrieved: Sequence[Retrieved] | None, config: Config
) -> Figures:
    """retrieved: None where the endpoint retrieved itself."""
    seed, num = config.seed, config.num_resamples
    whole = [n for n, reply in enumerate(replies) if reply.is_whole]
    groups = clusters([examples[n] for n in whole])
    rows = [_scores(examples[n], replies[n], retrieved[n] if retrieved else None, config) for n in whole]
    figures = {m: mean_estimate([row[m] for row in rows], groups, seed, num) for m in rows[0]}
    answered = [replies[n] for n in whole]
    times: dict[str, list[float | None]] = {"retrieval": [retrieved[n].elapsed_s for n in whole]} if retrieved else {}
    times |= {"first_token": [r.first_token_s for r in answered], "latency": [r.latency_s for r in answered]}
    for part, values in times.items():
        if found := [[value] for value in values if value is not None]:
            figures[f"{part}_p50_s"] = quantile(found, 0.5, seed, num)
    return figures


def _scores(example: Example, reply: Reply, retrieved: Retrieved | None, config: Config) -> dict[str, float]:
    ids = (
        retrieved.ids if retrieved else [str(i) for row in reply.documents for i in row.get("siblings") or [row["id"]]]
    )
    texts = retrieved.texts if retrieved else [str(row.get("text", "")) for row in reply.documents]
    found = scores(reply.text, example.answer, example.key_fact)
    return {
        "found": float(bool(set(ids) & set(example.evidence))),
        "correct": found["contains"],
        "exact_match": found["exact_match"],
        "grounded": _is_grounded(reply.text, "\n".join([*texts, example.question]), config.language),
    }


def _is_grounded(answer: str, source: str, language: str) -> float:
    if not answer.strip():
        return 0.0
    held = support(answer, source, language)
    return float(held.share >= MIN_SUPPORT and not held.missing_numbers and not held.missing_names)


def _compare(
    section: Section,
    examples: Sequence[Example],
    answers: dict[str, list[Reply]],
    retrieved: Sequence[Retrieved],
    config: Config,
) -> None:
    whole = [n for n in range(len(examples)) if all(replies[n].is_whole for replies in answers.values())]
    if not whole:
        section.notes.append("no question was answered by both endpoints: no differences")
        return
    found: dict[str, dict[str, list[float]]] = {}
    for name, replies in answers.items():
        rows = [_scores(examples[n], replies[n], retrieved[n], config) for n in whole]
        found[name] = {metric: [row[metric] for row in rows] for metric in ("correct", "exact_match", "grounded")}
    section.add_differences(RETRIEVED_HERE, found, clusters([examples[n] for n in whole]), config.seed)
