"""What conf/benchmark may set: which servers are measured, by which benchmarks, and how large each of them is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING

from stages.core.errors import ConfigError
from stages.core.schema import VARIABLE_NAME, one_of
from stages.serving.answering import Config as Chat
from stages.synthetic.settings import Provider

BENCHMARKS = ("throughput", "context", "writing", "coherence", "retrieval", "pipeline")


@dataclass
class Endpoint:
    """A model behind an OpenAI-compatible server.

    base_url "": our own server, which is started and stopped. model "": the first that the server names.
    extra: sent with each request, such as {ignore_eos: true}.
    """

    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api_key_env and not VARIABLE_NAME.fullmatch(self.api_key_env):
            # without its value, which may be the key
            raise ValueError("endpoints: api_key_env: give the name of an environment variable, such as OPENAI_API_KEY")
        if self.base_url:
            check_url(self.base_url, "endpoints: base_url")

    @property
    def is_own(self) -> bool:
        return not self.base_url

    def key(self) -> str:
        """The API key, "" where none is needed. Raises ConfigError where the environment lacks it."""
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"the environment has no {self.api_key_env}, which holds the key of {self.base_url}")
        return key


def check_url(url: str, name: str) -> None:
    """Raises ValueError for what is no URL of a server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name}: give the server's URL, such as http://127.0.0.1:8000/v1, not {url!r}")
    if parts.username or parts.password or parts.query:
        raise ValueError(f"{name}: no user, password or query in it; a key comes from the environment (api_key_env)")


@dataclass
class Throughput:
    """num_rounds rounds of num_requests requests for each number of clients that ask side by side."""

    concurrency: list[int] = MISSING
    num_rounds: int = MISSING
    num_requests: int = MISSING  # of a round; at least as many as there are clients
    num_warm_up: int = MISSING  # requests before the first round that do not count
    prompt_tokens: int = MISSING
    max_tokens: int = MISSING  # of an answer

    def __post_init__(self) -> None:
        if not self.concurrency or min(self.concurrency) < 1:
            raise ValueError("throughput.concurrency: numbers of clients, each at least 1")
        _at_least_one(self, "throughput", "num_rounds", "num_requests", "prompt_tokens", "max_tokens")


@dataclass
class Context:
    """Prompts of min_tokens, twice that, and so on to max_tokens, answer included, or to what the server takes."""

    min_tokens: int = MISSING
    max_tokens: int = MISSING
    num_requests: int = MISSING  # of each length
    answer_tokens: int = MISSING

    def __post_init__(self) -> None:
        _at_least_one(self, "context", "min_tokens", "max_tokens", "num_requests", "answer_tokens")


@dataclass
class Writing:
    """Writing tasks; {keywords} in a prompt stands for the words that the answer has to use."""

    prompts: list[str] = MISSING
    keywords: list[str] = MISSING
    num_keywords: int = MISSING  # of each prompt
    num_prompts: int = MISSING
    max_tokens: int = MISSING
    author: str = ""  # a writer of prepare_style; "": the only one, else the domain's book
    judge: Provider | None = None  # who decides which of two endpoints wrote the better text

    def __post_init__(self) -> None:
        _at_least_one(self, "writing", "num_keywords", "num_prompts", "max_tokens")
        if len(set(self.keywords)) < self.num_keywords:
            raise ValueError(f"writing.keywords: {len(set(self.keywords))} words; {self.num_keywords} are drawn")
        if not self.prompts or any("{keywords}" not in prompt for prompt in self.prompts):
            raise ValueError("writing.prompts: at least one, each with the placeholder {keywords}")


@dataclass
class Coherence:
    """Stories of num_tokens about invented things, and questions about what stands in each quarter of them."""

    num_tokens: int = MISSING
    num_stories: int = MISSING
    max_tokens: int = MISSING

    def __post_init__(self) -> None:
        _at_least_one(self, "coherence", "num_tokens", "num_stories", "max_tokens")


@dataclass
class Questions:
    """The first so many test questions of the domain; 0: all."""

    num_questions: int = 0
    max_tokens: int = 0  # of an answer; 0: chat.max_new_tokens

    def __post_init__(self) -> None:
        if min(self.num_questions, self.max_tokens) < 0:
            raise ValueError("num_questions and max_tokens must not be negative")


@dataclass
class Config:
    """Mirrors conf/benchmark/default.yaml."""

    chat: Chat = MISSING  # domain, prompt and retrieval, as in chat
    language: str = MISSING
    seed: int = MISSING
    kinds: list[str] = field(default_factory=list)  # of the records that retrieval is measured on
    held_out_share: float = MISSING
    endpoints: dict[str, Endpoint] = field(default_factory=dict)  # one, or two side by side
    only: list[str] = field(default_factory=list)  # of BENCHMARKS; []: all
    timeout_s: float = MISSING  # of a whole request
    max_concurrent: int = MISSING  # clients, where speed is not what is measured
    num_resamples: int = MISSING
    throughput: Throughput = MISSING
    context: Context = MISSING
    writing: Writing = MISSING
    coherence: Coherence = MISSING
    retrieval: Questions = MISSING
    pipeline: Questions = MISSING

    def __post_init__(self) -> None:
        for name in self.only:
            one_of(name, BENCHMARKS, "benchmark.only")
        if not 1 <= len(self.endpoints) <= 2:
            raise ValueError(
                f"benchmark.endpoints: give one, or two to measure side by side, not {len(self.endpoints)}"
            )
        if self.timeout_s <= 0 or self.max_concurrent < 1 or self.num_resamples < 100:
            raise ValueError("benchmark: timeout_s above 0, max_concurrent at least 1, num_resamples at least 100")

    @property
    def chosen(self) -> list[str]:
        """The benchmarks that are run, in their order."""
        return [name for name in BENCHMARKS if not self.only or name in self.only]


def _at_least_one(settings: Any, name: str, *keys: str) -> None:
    for key in keys:
        if getattr(settings, key) < 1:
            raise ValueError(f"{name}.{key}: {getattr(settings, key)}; give at least 1")
