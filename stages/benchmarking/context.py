"""2. How speed and memory change with the length of the prompt, one client, twice the length each time."""

from __future__ import annotations

from collections.abc import Sequence

from stages.benchmarking.client import Client
from stages.benchmarking.invented_story import text_of
from stages.benchmarking.replies import ChatRequest, Reply
from stages.benchmarking.results import Figures, Section
from stages.benchmarking.session import Block, Session
from stages.benchmarking.settings import Config
from stages.benchmarking.speeds import mean, rate, ratio
from stages.core.errors import DataError
from stages.core.progress import track
from stages.evaluation.intervals import Estimate

FILL = 0.96  # of the limit: token counts of other text than the probe's are off by a few percent
TASK = "{text}\n\nGo on with this story, and write as much as you can."


def measure_context(session: Session, config: Config) -> Section:
    """Each length num_requests times; a length that an endpoint refuses is the last it is asked for."""
    section = Section("context")
    limit = _limit(session, config)
    refused: dict[str, Reply] = {}
    for length in track(lengths(config.context.min_tokens, limit, config.context.answer_tokens), "context"):
        blocks = [_ask(session, config, length, number) for number in range(config.context.num_requests)]
        for name in session.names:
            _add(section, name, length, [block[name] for block in blocks], config)
            replies = [reply for block in blocks for reply in block[name].replies]
            if too_long := next((reply for reply in replies if reply.failure.startswith("http_4")), None):
                refused[name] = too_long
        if len(section.figures.get(_setting(length), {})) == 2:
            section.ratios[_setting(length)] = _ratios(blocks, session.names, config)
        if refused:
            break
    for name, reply in refused.items():
        section.notes.append(f"{name} refuses {length} tokens, and more was not asked: {reply.detail}")
    if not section.figures:
        raise DataError("context: no request was answered" + "".join(f"; {note}" for note in section.notes))
    return section


def lengths(smallest: int, limit: int, answer_tokens: int) -> list[int]:
    """Prompt lengths: smallest, twice that, and so on, and the last that leaves room for the answer.

    Raises DataError where not even the smallest one fits.
    """
    last = int((limit - answer_tokens) * FILL)
    if last < smallest:
        raise DataError(f"context.min_tokens: {smallest} do not fit into {limit} tokens with an answer")
    found = []
    while smallest < last:
        found.append(smallest)
        smallest *= 2
    return [*(length for length in found if length * 1.25 < last), last]


def _limit(session: Session, config: Config) -> int:
    """The configured one, and no more than what an endpoint says that it can."""
    known = [client.can.max_context_tokens for client in session.clients.values() if client.can.max_context_tokens]
    return min([config.context.max_tokens, *known])


def _ask(session: Session, config: Config, length: int, number: int) -> dict[str, Block]:
    label = f"context {length} {number}"

    def requests(client: Client) -> list[ChatRequest]:
        text = text_of(config.seed, label, max(20, client.chars_of(length) - len(TASK)))
        messages = [{"role": "user", "content": TASK.replace("{text}", text)}]
        return [ChatRequest(messages, config.context.answer_tokens)]

    return session.ask(label, requests, 1)


def _add(section: Section, name: str, length: int, blocks: Sequence[Block], config: Config) -> None:
    replies = [reply for block in blocks for reply in block.whole if reply.num_tokens]
    if not replies:
        return
    seed, num = config.seed, config.num_resamples
    tokens, seconds = [float(r.num_tokens) for r in replies], [r.latency_s for r in replies]
    figures: Figures = {}
    if all(reply.num_prompt_tokens for reply in replies):
        figures["prompt_tokens"] = mean([float(reply.num_prompt_tokens) for reply in replies], seed, num)
    figures["tokens_per_s"] = rate(tokens, seconds, seed, num)
    streamed = [(r.first_token_s, r) for r in replies if r.first_token_s is not None and r.num_tokens > 1]
    if streamed:
        figures["first_token_s"] = mean([first for first, _ in streamed], seed, num)
        after = [(float(r.num_tokens - 1), sum(r.gaps_s)) for _, r in streamed if sum(r.gaps_s) > 0]
        if after:
            figures["writing_tokens_per_s"] = rate([n for n, _ in after], [s for _, s in after], seed, num)
    if all(block.peak_bytes for block in blocks):
        figures["memory_bytes"] = Estimate(float(max(b.peak_bytes for b in blocks)), None, None, len(blocks))
    section.add(_setting(length), name, figures)


def _setting(length: int) -> str:
    return f"{length} tokens"


def _ratios(blocks: Sequence[dict[str, Block]], names: Sequence[str], config: Config) -> Figures:
    first, second = names
    pairs = [(b[first], b[second]) for b in blocks if b[first].num_tokens and b[second].num_tokens]
    if not pairs:
        return {}
    rates = [[block.num_tokens / block.wall_s for block in side] for side in zip(*pairs, strict=True)]
    return {"tokens_per_s": ratio(rates[1], rates[0], config.seed, config.num_resamples)}
