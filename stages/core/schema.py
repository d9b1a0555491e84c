"""The config groups that several stages share: conf/model, conf/embedder, conf/domain, conf/prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

MODEL_KINDS = ("build", "local", "hub")
DTYPES = ("float32", "bfloat16", "float16")
VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")  # of the environment


def one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
    """Raises ValueError naming the key and what it may be."""
    if value not in allowed:
        raise ValueError(f"{key}: {value!r} is not one of {', '.join(allowed)}")


@dataclass
class Model:
    """A base model: `build` makes it here, `local` is a folder, `hub` an id at a pinned revision."""

    name: str = MISSING
    kind: str = MISSING
    path: str = ""  # local: the folder; hub: owner/name
    revision: str = ""  # hub: the commit
    dtype: str = "float32"
    attention: str = "sdpa"
    max_context_tokens: int = MISSING

    def __post_init__(self) -> None:
        one_of(self.kind, MODEL_KINDS, "model.kind")
        one_of(self.dtype, DTYPES, "model.dtype")
        if self.kind != "build" and not self.path:
            raise ValueError(f"model.path: a {self.kind} model needs one")
        if self.kind == "hub" and not self.revision:
            raise ValueError("model.revision: a hub model is pinned to a commit; give one")


@dataclass
class Embedder:
    """A sentence encoder. `package` carries its weights (no network); else `path` is a folder or a hub id."""

    name: str = MISSING
    package: str = ""
    path: str = ""
    revision: str = ""
    weights_sha256: str = ""  # of the packaged model.safetensors; empty: not checked
    query_prefix: str = ""
    passage_prefix: str = ""
    dimension: int = MISSING
    max_tokens: int = MISSING
    batch_size: int = 64
    dtype: str = "float32"

    def __post_init__(self) -> None:
        one_of(self.dtype, DTYPES, "embedder.dtype")
        if bool(self.package) == bool(self.path):
            raise ValueError("embedder: give either package or path")


@dataclass
class Prompt:
    """The texts of a prompt; `stages.prompts` puts them together.

    `document` has {number} and {text}; `documents` has {documents}; `with_documents` has {documents}.
    """

    name: str = MISSING
    with_documents: str = MISSING
    without_documents: str = MISSING
    documents: str = MISSING
    document: str = MISSING
    abstain: str = MISSING  # what to answer when the documents do not hold the answer

    def __post_init__(self) -> None:
        needed = {
            "with_documents": ("{documents}",),
            "documents": ("{documents}",),
            "document": ("{number}", "{text}"),
        }
        for key, placeholders in needed.items():
            for placeholder in placeholders:
                if placeholder not in getattr(self, key):
                    raise ValueError(f"prompt.{key}: the placeholder {placeholder} is missing")


@dataclass
class Lora:
    """Low-rank adaptation (Hu et al., 2021, arXiv:2106.09685): weight += alpha / r * B @ A."""

    r: int = MISSING
    alpha: int = MISSING
    dropout: float = 0.0
    modules: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha < 1:
            raise ValueError("lora.r and lora.alpha must be at least 1")
        if not self.modules:
            raise ValueError("lora.modules: name at least one module, such as q_proj")


@dataclass
class Training:
    """What every training stage sets; batch sizes count sequences."""

    learning_rate: float = MISSING
    scheduler: str = "cosine"
    warmup_steps: int = 0
    num_epochs: int = MISSING
    batch_size: int = MISSING
    accumulation: int = 1
    max_length: int = MISSING  # tokens
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    patience: int = 0  # epochs without a better eval loss before stopping; 0: never
    checkpoint_every_epochs: float = 1.0  # may be below 1
    bf16: bool = False
    activation_checkpointing: bool = False
    num_threads: int = 0  # 0: torch's own choice


@dataclass
class Source:
    """A raw file of a domain. `fields` maps our names to the file's: {question: vopros, answer: otvet}."""

    path: str = MISSING  # below the domain's raw_dir
    kind: str = MISSING  # qa | boundary | interview for Q&A; book | article for connected text
    fields: dict[str, str] = field(default_factory=dict)
    format: str = ""  # of Q&A: chat | sharegpt | alpaca | qa | prompt_completion | csv, which need no `fields`
    style: str = ""  # of Q&A: the manner of its answers, such as socratic


@dataclass
class Domain:
    """What a model is about, and where its raw material lies."""

    name: str = MISSING
    language: str = MISSING
    raw_dir: str = MISSING  # anywhere
    generators: dict[str, dict[str, int]] = field(default_factory=dict)  # stages that write raw_dir; only the demo's
    curation_dir: str = MISSING  # what people changed and decided: edits of chunks, reviews of generated pairs; in git
    qa: list[Source] = field(default_factory=list)
    texts: list[Source] = field(default_factory=list)


@dataclass
class ChromaServer:
    """Where a Chroma server listens. auth_env names an environment variable with the value of the header auth_header,
    such as "Bearer ..."; it stands in no file of ours."""

    host: str = "127.0.0.1"
    port: int = 8000
    ssl: bool = False
    auth_header: str = "Authorization"
    auth_env: str = ""
    timeout_s: float = 10.0  # for its first answer

    def __post_init__(self) -> None:
        if not self.host or "/" in self.host or not 0 < self.port < 65536 or self.timeout_s <= 0:
            raise ValueError("retrieval.server: host is a name or an address, port a number, timeout_s above 0")
        if self.auth_env and not VARIABLE_NAME.fullmatch(self.auth_env):
            # without its value, which may be the key
            raise ValueError("retrieval.server.auth_env: give the name of an environment variable")


@dataclass
class Retrieval:
    """How documents are looked up; the index itself does not depend on it. server: of store chroma_server."""

    store: str = MISSING
    fulltext: bool = False
    fusion_k: int = 60
    server: ChromaServer = field(default_factory=ChromaServer)

    def __post_init__(self) -> None:
        one_of(self.store, ("chroma", "chroma_server", "faiss"), "retrieval.store")
