"""4. Does it keep a long text in mind? Questions about what stands in each quarter of a story.

    recalled       the right value stands in the answer
    contradicted   another value of the story stands there, with or without the right one

The story comes as a document comes, in the prompt of training; nobody can know the answers without it.
"""

from __future__ import annotations

from stages.benchmarking.client import Client
from stages.benchmarking.invented_story import NUM_QUARTERS, Story, StoryQuestion, story
from stages.benchmarking.replies import ChatRequest, Reply
from stages.benchmarking.results import DISTRUSTED, Section
from stages.benchmarking.session import Session
from stages.benchmarking.settings import Config
from stages.core.errors import DataError
from stages.core.progress import track
from stages.evaluation.intervals import mean_estimate
from stages.prompts.renderer import Renderer

QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
WHOLE = "whole story"

Answered = list[tuple[int, StoryQuestion, Reply]]  # number of the story, question, answer


def measure_coherence(session: Session, config: Config) -> Section:
    """num_stories stories, a question about each quarter of each; intervals are clustered by story."""
    section, found = Section("coherence"), dict[str, Answered]()
    renderer = Renderer(config.chat.prompt)
    for number in track(range(config.coherence.num_stories), "coherence"):

        def requests(client: Client, number: int = number) -> list[ChatRequest]:
            told = _story(client, config, number)
            messages = [renderer.messages(asked.question, [told.text]) for asked in told.questions]
            return [ChatRequest(message, config.coherence.max_tokens) for message in messages]

        for name, block in session.ask(f"coherence {number}", requests, config.max_concurrent).items():
            asked = _story(session.clients[name], config, number).questions
            pairs = zip(asked, block.replies, strict=True)
            found.setdefault(name, []).extend((number, question, reply) for question, reply in pairs)
    _check(found)
    _compare(section, found, config)
    _note_lengths(section, found)
    section.notes += [DISTRUSTED.format(name=name) for name, client in session.clients.items() if client.can.retrieves]
    return section


def _story(client: Client, config: Config, number: int) -> Story:
    num_tokens = min(config.coherence.num_tokens, _room(client, config))
    return story(config.seed, number, client.chars_of(num_tokens))


def _room(client: Client, config: Config) -> int:
    """For the prompt: an eighth of the limit is left for instructions and what counts of tokens are off by."""
    limit = client.can.max_context_tokens or config.coherence.num_tokens * 2
    return limit * 7 // 8 - config.coherence.max_tokens


def _check(found: dict[str, Answered]) -> None:
    for name, answered in found.items():
        if not any(reply.is_whole for _, _, reply in answered):
            reply = answered[0][2]
            raise DataError(f"coherence: {name} answered no question ({reply.failure}: {reply.detail})")


def _compare(section: Section, found: dict[str, Answered], config: Config) -> None:
    numbers = range(len(next(iter(found.values()))))
    whole = [n for n in numbers if all(answered[n][2].is_whole for answered in found.values())]
    for setting, quarters in {WHOLE: range(NUM_QUARTERS), **{q: [n] for n, q in enumerate(QUARTERS)}}.items():
        scores, clusters = {}, list[int]()
        for name, answered in found.items():
            rows = [answered[n] for n in whole if answered[n][1].quarter in quarters]
            clusters = [number for number, _, _ in rows]
            scores[name] = {
                "recalled": [float(question.is_recalled(reply.text)) for _, question, reply in rows],
                "contradicted": [float(question.is_contradicted(reply.text)) for _, question, reply in rows],
            }
        if not clusters:
            continue
        for name, values in scores.items():
            figures = {m: mean_estimate(v, clusters, config.seed, config.num_resamples) for m, v in values.items()}
            section.add(setting, name, figures)
        section.add_differences(setting, scores, clusters, config.seed)


def _note_lengths(section: Section, found: dict[str, Answered]) -> None:
    for name, answered in found.items():
        counts = [reply.num_prompt_tokens for _, _, reply in answered if reply.num_prompt_tokens]
        if counts:
            section.notes.append(f"{name}: prompts of {min(counts)} to {max(counts)} tokens, as it counts them")
