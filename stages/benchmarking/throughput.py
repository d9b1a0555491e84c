"""1. How fast: tokens per second, time to the first token and between tokens, by the number of clients.

Every client asks again as soon as it has its answer. Prompts are all different, so that no prefix cache helps.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.benchmarking.client import Client
from stages.benchmarking.invented_story import text_of
from stages.benchmarking.replies import ChatRequest
from stages.benchmarking.results import Figures, Section
from stages.benchmarking.session import Block, Session
from stages.benchmarking.settings import Config, Throughput
from stages.benchmarking.speeds import mean, quantile, rate, ratio
from stages.core.errors import DataError
from stages.core.progress import track

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
TASK = "Go on with this story, and write as much as you can.\n\n{text}"


def measure_throughput(session: Session, config: Config) -> Section:
    """Rounds of requests at each number of clients."""
    section, settings = Section("throughput"), config.throughput
    plan = [(clients, number) for clients in settings.concurrency for number in range(settings.num_rounds)]
    rounds: dict[int, list[dict[str, Block]]] = {}
    for clients, number in track(plan, "throughput"):
        label = f"throughput {clients} {number}"
        warm_up = 0 if number else settings.num_warm_up

        def requests(client: Client, label: str = label, clients: int = clients) -> list[ChatRequest]:
            return _requests(client, settings, config.seed, label, max(settings.num_requests, clients))

        rounds.setdefault(clients, []).append(session.ask(label, requests, clients, warm_up))
    for clients, blocks in rounds.items():
        setting = f"{clients} client{'s' if clients > 1 else ''}"
        for name in session.names:
            found = [block[name] for block in blocks]
            if any(block.num_tokens for block in found):
                section.add(setting, name, _figures(found, config))
        if len(section.figures.get(setting, {})) == 2:
            section.ratios[setting] = _ratios(blocks, session.names, config)
    if not section.figures:
        raise DataError("throughput: no request was answered")
    _explain(section, session)
    return section


def _requests(client: Client, settings: Throughput, seed: int, label: str, num: int) -> list[ChatRequest]:
    num_chars = client.chars_of(settings.prompt_tokens) - len(TASK)
    texts = [text_of(seed, f"{label} {number}", max(20, num_chars)) for number in range(num)]
    return [ChatRequest([{"role": "user", "content": TASK.replace("{text}", t)}], settings.max_tokens) for t in texts]


def _figures(blocks: Sequence[Block], config: Config) -> Figures:
    seed, num = config.seed, config.num_resamples
    replies = [reply for block in blocks for reply in block.whole]
    figures = {
        "tokens_per_s": rate([b.num_tokens for b in blocks], [b.wall_s for b in blocks], seed, num),
        "answer_tokens": mean([reply.num_tokens for reply in replies], seed, num),
    }
    firsts = [[reply.first_token_s] for reply in replies if reply.first_token_s is not None]
    gaps = [reply.gaps_s for reply in replies if reply.gaps_s]
    for name, share in QUANTILES.items():
        if firsts:
            figures[f"first_token_{name}_s"] = quantile(firsts, share, seed, num)
        if gaps:
            figures[f"between_tokens_{name}_s"] = quantile(gaps, share, seed, num)
        figures[f"latency_{name}_s"] = quantile([[reply.latency_s] for reply in replies], share, seed, num)
    return figures


def _ratios(rounds: Sequence[dict[str, Block]], names: Sequence[str], config: Config) -> Figures:
    """Of the rounds in which both answered."""
    first, second = names
    pairs = [(r[first], r[second]) for r in rounds if r[first].num_tokens and r[second].num_tokens]
    ratios = {}
    for metric, value in {"tokens_per_s": _tokens_per_s, "first_token_p50_s": _first_token_s}.items():
        found = [(value(a), value(b)) for a, b in pairs if value(a) > 0 and value(b) > 0]
        if found:
            ratios[metric] = ratio([b for _, b in found], [a for a, _ in found], config.seed, config.num_resamples)
    return ratios


def _tokens_per_s(block: Block) -> float:
    return block.num_tokens / block.wall_s


def _first_token_s(block: Block) -> float:
    """The median; 0 where nothing streamed."""
    times = sorted(reply.first_token_s for reply in block.whole if reply.first_token_s is not None)
    return times[len(times) // 2] if times else 0.0


def _explain(section: Section, session: Session) -> None:
    for name, client in session.clients.items():
        if not client.can.counts_tokens:
            section.notes.append(f"{name} does not count tokens; the pieces of its streams are counted instead")
        if not client.can.streams:
            section.notes.append(f"{name} answers in one piece: no time to the first token, none between tokens")
