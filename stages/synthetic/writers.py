"""From tasks to drafts, by whichever model and method the configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.core import schema
from stages.core.engine import Engine
from stages.core.fingerprint import fingerprint
from stages.core.workspace import Workspace
from stages.prompts.renderer import Renderer
from stages.synthetic.drafts import Draft
from stages.synthetic.plan import Task
from stages.synthetic.requests import Reply, Request, Requests
from stages.synthetic.settings import Local, Provider, Style, Wording


class ModelSettings(Protocol):
    """Which model is asked: a provider's, or the base in this process."""

    seed: int
    model: schema.Model
    prompt: schema.Prompt
    provider: Provider
    local: Local


class Settings(ModelSettings, Protocol):
    """What is needed of the stage's configuration."""

    language: str
    audience: str
    method: str
    styles: dict[str, Style]
    wording: Wording
    engine: Engine


@dataclass(frozen=True)
class Usage:
    """Of all requests behind a result, whenever they were asked."""

    num_requests: int
    num_prompt_tokens: int
    num_completion_tokens: int

    def cost(self, provider: Provider) -> float:
        """In the currency of the provider's prices."""
        prompt = self.num_prompt_tokens * provider.price_per_million_input
        completion = self.num_completion_tokens * provider.price_per_million_output
        return (prompt + completion) / 1e6


def model_name(provider: Provider, model: schema.Model) -> str:
    """As it stands in the pairs."""
    return provider.model if provider.kind == "openai" else model.name


def prompt_hashes(config: Settings) -> dict[str, str]:
    """By style: of all that the model was shown besides the chunk."""
    if _continues_chats(config):
        shown = Renderer(config.prompt).hash
        return {
            name: fingerprint(shown, style.frame_question, style.frame_answer) for name, style in config.styles.items()
        }
    return {name: _requests(config).prompt_hash(name) for name in config.styles}


def _continues_chats(config: Settings) -> bool:
    return config.provider.kind == "local" and config.method == "continue_chat"


def _requests(config: Settings) -> Requests:
    return Requests(config.wording, config.styles, config.language, config.audience, Renderer(config.prompt))


def write(config: Settings, tasks: Sequence[Task], workspace: Workspace) -> tuple[list[Draft], Usage]:
    """Every pair asked for as a draft, in the order of the tasks, and what it took."""
    if not tasks:
        return [], Usage(0, 0, 0)
    if _continues_chats(config):
        from stages.synthetic.local_model import LocalModel

        local = LocalModel(config.model, config.prompt, config.local, config.seed, workspace, config.engine)
        drafts, replies = local.continue_chats(tasks, config.styles)
        return drafts, usage_of(replies)
    requests = _requests(config)
    answers = ask(config, [requests.build(task) for task in tasks], workspace, config.engine)
    drafts = [draft for task, reply in zip(tasks, answers, strict=True) for draft in requests.read(task, reply)]
    return drafts, usage_of(answers)


def ask(
    config: ModelSettings, requests: Sequence[Request], workspace: Workspace, engine: Engine | None = None
) -> list[Reply]:
    """A reply for each request, in their order; none is asked for twice.

    engine: where the base itself answers; a server is asked from here, where its rate is kept.
    """
    if config.provider.kind == "local":
        from stages.synthetic.local_model import LocalModel

        return LocalModel(config.model, config.prompt, config.local, config.seed, workspace, engine).answer(requests)
    from stages.synthetic.server import Server

    return Server(config.provider, workspace.cache("requests")).answer(requests)


def usage_of(replies: Iterable[Reply]) -> Usage:
    """What the replies took, summed."""
    replies = list(replies)
    return Usage(
        len(replies), sum(reply.num_prompt_tokens for reply in replies), sum(r.num_completion_tokens for r in replies)
    )
