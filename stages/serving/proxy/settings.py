"""What conf/serve may set, and the keys that the environment holds."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import PurePath
from urllib.parse import urlsplit

from omegaconf import MISSING

from stages.core.errors import ConfigError
from stages.core.schema import VARIABLE_NAME, one_of

KINDS = ("openai", "local")
CLIENT_SYSTEM = ("refuse", "ignore")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
KEY = re.compile(r"[!-~]+")  # what a header can carry


@dataclass
class Upstream:
    """Who writes the answers. The last three are about `local`, everything else about a server (`openai`).

    read_timeout_s: its longest silence, which for the first token includes reading the prompt. stream_usage: ask it
    to count tokens. images: it takes pictures (data: URLs) in a message.
    """

    kind: str = MISSING
    base_url: str = ""
    api_key_env: str = ""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 120.0
    total_timeout_s: float = 600.0
    stream_usage: bool = True
    images: bool = False
    max_batch_size: int = 16  # answers of one model that are written together
    max_total_tokens: int = 0  # of their prompts and answers, for which memory is taken; 0: as many as can come
    prefix_cache_bytes: int = 2**28  # of what was read, for prompts that begin alike; of each domain

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "upstreams: kind")
        check_variable(self.api_key_env, "upstreams: api_key_env")
        if self.kind == "openai":
            url = urlsplit(self.base_url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("upstreams: base_url: give the server's URL, such as http://127.0.0.1:8000/v1")
            if url.username or url.password or url.query or url.fragment:
                raise ValueError("upstreams: base_url: no user, password or query in it; see api_key_env")
        if min(self.connect_timeout_s, self.read_timeout_s, self.total_timeout_s) <= 0:
            raise ValueError("upstreams: timeouts must be above 0")
        if self.max_batch_size < 1:
            raise ValueError("upstreams: max_batch_size must be at least 1")
        if min(self.max_total_tokens, self.prefix_cache_bytes) < 0:
            raise ValueError("upstreams: max_total_tokens and prefix_cache_bytes must be at least 0")


@dataclass
class ServedModel:
    """A name that clients may ask for.

    domain: "" is the first one; model: its name at the upstream ("": the same name), for `local` one of tuned, book,
    base, or a style. files: of an `openai` model, the folder with its tokenizer (an export); "": the domain's own
    base model. documents: false answers without looking any up. context_tokens: of that server (llama.cpp's n_ctx,
    vLLM's --max-model-len), where it takes less than the model does; 0: as much.
    """

    upstream: str = MISSING
    domain: str = ""
    model: str = ""
    files: str = ""
    documents: bool = True
    context_tokens: int = 0

    def __post_init__(self) -> None:
        if self.context_tokens < 0:
            raise ValueError("models: context_tokens must be at least 0")


@dataclass
class Limits:
    """Beyond these a request is refused by name. Sizes in bytes and tokens, times in seconds."""

    max_body_bytes: int = MISSING
    max_messages: int = MISSING
    max_new_tokens: int = MISSING
    max_choices: int = MISSING
    max_top_k: int = MISSING
    max_siblings: int = MISSING
    max_inputs: int = MISSING
    max_concurrent: int = MISSING
    max_queue: int = MISSING
    queue_timeout_s: float = MISSING
    body_timeout_s: float = MISSING
    client_timeout_s: float = MISSING

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0 and name not in ("max_queue", "max_siblings"):
                raise ValueError(f"limits.{name} must be above 0")
        if self.max_queue < 0 or self.max_siblings < 0:
            raise ValueError("limits.max_queue and limits.max_siblings must be at least 0")


@dataclass
class StatsSettings:
    """What /stats remembers."""

    window: int = MISSING
    num_recent: int = MISSING
    query_text: bool = False

    def __post_init__(self) -> None:
        if self.window < 1 or self.num_recent < 0:
            raise ValueError("stats.window must be at least 1 and stats.num_recent at least 0")


@dataclass
class Config:
    """The section `serve` of params.yaml."""

    host: str = MISSING
    port: int = MISSING
    api_key_env: str = ""
    admin_key_env: str = ""
    allowed_hosts: list[str] = field(default_factory=list)
    allowed_origins: list[str] = field(default_factory=list)
    domains: list[str] = MISSING
    predict: bool = True
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    models: dict[str, ServedModel] = field(default_factory=dict)
    client_system: str = "refuse"
    watch_s: float = 2.0
    limits: Limits = MISSING
    stats: StatsSettings = MISSING

    def __post_init__(self) -> None:
        one_of(self.client_system, CLIENT_SYSTEM, "client_system")
        check_variable(self.api_key_env, "api_key_env")
        check_variable(self.admin_key_env, "admin_key_env")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is none; 0 takes a free one")
        if not self.domains:
            raise ValueError("domains: name at least one")
        if self.watch_s < 0:
            raise ValueError("watch_s must be at least 0")
        for name, model in self.models.items():
            self._check_model(name, model)
        if not self.models and not any(upstream.kind == "local" for upstream in self.upstreams.values()):
            raise ValueError("models: name at least one, as there is no upstream that is `local`")

    def _check_model(self, name: str, model: ServedModel) -> None:
        if not MODEL_NAME.fullmatch(name):
            raise ValueError(f"models: {name!r} cannot be a model's name: letters, digits, and . _ : / @ -")
        one_of(model.upstream, tuple(self.upstreams), f"models.{name}.upstream")
        one_of(model.domain or self.domains[0], tuple(self.domains), f"models.{name}.domain")
        if model.files and self.upstreams[model.upstream].kind != "openai":
            raise ValueError(f"models.{name}.files: only for an upstream of kind openai")

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def name_for_clients(upstream_model: str) -> str:
    """The name at the upstream; of a path on that machine its last part."""
    return upstream_model if MODEL_NAME.fullmatch(upstream_model) else PurePath(upstream_model).name


def check_variable(name: str, key: str) -> None:
    """Raises ValueError where `name` is no environment variable's; without its value, which may be a key itself."""
    if name and not VARIABLE_NAME.fullmatch(name):
        raise ValueError(f"{key}: give the name of an environment variable, such as OPENAI_API_KEY")


def key_from(variable: str) -> str:
    """The key that a variable holds; "" where it is not set. ConfigError for one that no header can carry."""
    key = os.environ.get(variable, "") if variable else ""
    if key and not KEY.fullmatch(key):
        raise ConfigError(f"{variable}: holds a space, a line end or a character that no header can carry")
    return key
