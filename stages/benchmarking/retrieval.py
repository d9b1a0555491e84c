"""5. Are the right documents found? The domain's test questions against the endpoint's own search.

An endpoint without /v1/retrieve has none; then the domain's index is searched in this process. Only records of `kinds`
are looked for: the questions themselves, with their answers, are among the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from stages.benchmarking.asked_questions import read_questions
from stages.benchmarking.replies import Reply, RetrieveRequest
from stages.benchmarking.results import Figures, Section
from stages.benchmarking.session import Session
from stages.benchmarking.settings import Config
from stages.benchmarking.speeds import quantile
from stages.core.errors import DataError
from stages.core.progress import track
from stages.core.workspace import Workspace
from stages.evaluation.answering import clusters
from stages.evaluation.intervals import mean_estimate
from stages.evaluation.rankings import scores
from stages.knowledge.records import Example
from stages.serving.finding import DocumentFinder, document_row

METRICS = ("recall_at_1", "recall_at_2", "recall_at_5", "mrr")
BATCH = 8  # questions in a block
DEPTH = 20  # ranks that are looked at, as many as our server gives
FARTHEST = 2.0  # cosine distance
IN_PROCESS = "index, in this process"
SETTING = "retrieval"


def measure_retrieval(session: Session, config: Config, workspace: Workspace) -> Section:
    """One question after the other, as a person asks."""
    section = Section("retrieval")
    asked = read_questions(workspace, config.chat.domain, config.retrieval.num_questions)
    everything = asked.questions + asked.boundary
    found = _from_endpoints(session, everything, config)
    if not found:
        found[IN_PROCESS] = _in_process(everything, config, workspace)
    for name, replies in found.items():
        if not any(reply.is_whole for reply in replies):
            raise DataError(f"retrieval: {name} answers no query: {replies[0].failure}: {replies[0].detail}")
        section.add(SETTING, name, _figures(everything, replies, config))
    if len(found) == 2:
        _compare(section, everything, found, config)
    section.notes.append(
        f"the nearest {DEPTH} records of {', '.join(config.kinds)} were looked at; a question is unanswered where none "
        f"of them is within {config.chat.max_distance:g}"
    )
    return section


def _from_endpoints(session: Session, examples: Sequence[Example], config: Config) -> dict[str, list[Reply]]:
    """Of those that retrieve; two models of one server share its search, which is asked once."""
    servers = {c.base_url: name for name, c in reversed(session.clients.items()) if c.can.retrieves}
    names = [name for name in session.names if name in servers.values()]
    if not names:
        return {}
    kinds, domain = tuple(config.kinds), config.chat.domain
    requests = [RetrieveRequest(example.question, domain, kinds, DEPTH, FARTHEST, 0) for example in examples]
    found: dict[str, list[Reply]] = {name: [] for name in names}
    for at in track(range(0, len(requests), BATCH), "retrieval"):
        part = requests[at : at + BATCH]
        for name, block in session.ask("retrieval", lambda client, part=part: part, 1, names=names).items():  # type: ignore[misc]
            found[name] += block.replies
    return found


def _in_process(examples: Sequence[Example], config: Config, workspace: Workspace) -> list[Reply]:
    finder = finder_of(config, workspace, DEPTH, FARTHEST, num_siblings=0)
    replies = []
    for example in track(examples, "retrieval"):
        start_s = time.perf_counter()
        documents = [document_row(document) for document in finder.find(example.question)]
        replies.append(Reply(latency_s=time.perf_counter() - start_s, documents=documents))
    return replies


def finder_of(
    config: Config, workspace: Workspace, top_k: int, max_distance: float, num_siblings: int
) -> DocumentFinder:
    """Searches the domain's index for records of `kinds`. Raises DataError where there is none to search."""
    chat = config.chat
    parts = (workspace, chat.domain, chat.embedder, chat.retrieval, config.kinds)
    finder = DocumentFinder(*parts, top_k, max_distance, num_siblings)
    finder.load()
    return finder


def _figures(examples: Sequence[Example], replies: Sequence[Reply], config: Config) -> Figures:
    """Recall over the questions whose evidence is known."""
    seed, num = config.seed, config.num_resamples
    pairs = [(e, r) for e, r in zip(examples, replies, strict=True) if r.is_whole]
    questions = [(e, r) for e, r in pairs if e.kind != "boundary"]
    known = [(e, r) for e, r in questions if e.evidence]
    figures: Figures = {}
    if known:
        found, groups = [_ranked(e, r) for e, r in known], clusters([e for e, _ in known])
        figures = {metric: mean_estimate([row[metric] for row in found], groups, seed, num) for metric in METRICS}
    if nearest := [(e, _nearest(r)) for e, r in questions if r.documents]:
        groups = clusters([e for e, _ in nearest])
        figures["nearest_distance"] = mean_estimate([d for _, d in nearest], groups, seed, num, (0.0, FARTHEST))
    for metric, rows in (
        ("unanswered", questions),
        ("boundary_unanswered", [(e, r) for e, r in pairs if e.kind == "boundary"]),
    ):
        if rows:
            values = [float(_nearest(r) > config.chat.max_distance) for _, r in rows]
            figures[metric] = mean_estimate(values, clusters([e for e, _ in rows]), seed, num)
    figures["search_p50_s"] = quantile([[r.latency_s] for _, r in pairs], 0.5, seed, num)
    return figures


def _ranked(example: Example, reply: Reply) -> dict[str, float]:
    return scores([str(row["id"]) for row in reply.documents], example.evidence)


def _nearest(reply: Reply) -> float:
    return min((float(row["distance"]) for row in reply.documents), default=FARTHEST)


def _compare(section: Section, examples: Sequence[Example], found: dict[str, list[Reply]], config: Config) -> None:
    known = [n for n, e in enumerate(examples) if e.kind != "boundary" and e.evidence]
    known = [n for n in known if all(replies[n].is_whole for replies in found.values())]
    if not known:
        return
    rows = {name: [_ranked(examples[n], replies[n]) for n in known] for name, replies in found.items()}
    scores_of = {name: {metric: [row[metric] for row in side] for metric in METRICS} for name, side in rows.items()}
    section.add_differences(SETTING, scores_of, clusters([examples[n] for n in known]), config.seed)
