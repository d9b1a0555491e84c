"""Requests and answers of the API. Closed: a parameter that is not here is refused by its name.

OpenAI's fields, and ours: `rag` in a request for a chat; `sources` and `rag` in its answer (in a stream, in its first
event).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

SURROGATE = re.compile(r"[\ud800-\udfff]")
CONTROLS = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"  # all but tab and line ends
CONTROL = re.compile(f"[{CONTROLS}]")


def _unicode(value: Any) -> Any:
    if isinstance(value, str) and SURROGATE.search(value):
        raise PydanticCustomError("invalid_unicode", "half of a surrogate pair is no character")
    return value


def _without_controls(text: str) -> str:
    if found := CONTROL.search(text):
        raise PydanticCustomError("control_character", "control character U+{code}", {"code": f"{ord(found[0]):04X}"})
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "the text is empty")
    return text


# The patterns are for readers of the schema; the errors say more than that a pattern does not match.
Text = Annotated[
    str,
    BeforeValidator(_unicode),
    AfterValidator(_without_controls),
    Field(json_schema_extra={"pattern": f"^[^{CONTROLS}]*$"}),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
SourceNames = Annotated[list[Name], Field(min_length=1, max_length=64)]
Query = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100_000),
    AfterValidator(_without_controls),
    AfterValidator(_not_blank),
    Field(json_schema_extra={"pattern": rf"^[^{CONTROLS}]*[^{CONTROLS}\s][^{CONTROLS}]*$"}),
]


class Closed(BaseModel):
    """Takes no other field, no NaN, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Asked(Closed):
    """And no half of a surrogate pair in its texts, as nothing could encode it; 3.0 is a whole number of JSON."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_json_means_it(cls, value: Any) -> Any:
        for one in value if isinstance(value, list) else [value]:
            _unicode(one)
        return int(value) if isinstance(value, float) and value.is_integer() else value


class RagOptions(Asked):
    """How documents are looked up for this request; what is not given is as the domain has it."""

    off: bool = Field(default=False, description="Answer without documents.")
    top_k: int | None = Field(default=None, ge=1, description="Documents at most.")
    max_distance: float | None = Field(
        default=None, ge=0, le=2, description="Cosine distance beyond which none counts."
    )
    siblings: int | None = Field(default=None, ge=0, description="Chunks before and after each hit.")
    set: Name | None = Field(default=None, description="One of the domain's sets of documents.")
    sources: bool | SourceNames = Field(
        default=True,
        description="Return the documents; or the kinds (book) and documents (rules.pdf) that alone are looked in.",
    )


class TextPart(Closed):
    """A piece of text in a message."""

    type: Literal["text"]
    text: Text


class ImageUrl(Closed):
    """A picture, as a data: URL."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Closed):
    """A picture in the last message, for an upstream that takes them."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ChatMessage(Asked):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: Name | None = Field(default=None, description="Taken and not used.")


class StreamOptions(Closed):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(Asked):
    """A chat. The last message is the question that documents are looked up for."""

    model: Name
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of max_tokens.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0, the default, as in evaluation: greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    user: str | None = Field(default=None, description="Taken and not used.")
    rag: RagOptions = Field(default_factory=RagOptions)


class Source(BaseModel):
    """A document of the prompt. text: all of it, siblings included, as it was found."""

    id: str
    kind: str
    document: str
    section: str
    number: int
    distance: float
    text: str
    siblings: list[str] = Field(description="Ids of the chunks it was joined from, the hit included.")


class RagReport(BaseModel):
    """What was done about documents. template: hash of prompt, chat template and special tokens."""

    domain: str
    template: str
    num_documents: int
    num_dropped_documents: int = Field(description="Found, and too long for the context.")
    num_without_siblings: int
    num_ignored_messages: int = Field(description="System messages of the client, where the server ignores them.")


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """What the model wrote."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """An answer as a whole."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    sources: list[Source] | None = None
    rag: RagReport


class ModelCard(BaseModel):
    """A model that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "groundtune"
    domain: str
    upstream: str
    context_tokens: int
    template: str = Field(description="Hash of the prompt's form; empty where it is known once the model is loaded.")


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class EmbeddingRequest(Asked):
    """Texts to vectors, by the embedder that an index was made with."""

    model: Name
    input: Query | Annotated[list[Query], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, description="Only the embedder's own.")
    input_type: Literal["query", "passage"] = "query"
    user: str | None = None


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """In the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class RetrieveRequest(Asked):
    """Documents for a query, without an answer."""

    query: Query
    domain: Name | None = Field(default=None, description="Else the first one.")
    top_k: int | None = Field(default=None, ge=1)
    max_distance: float | None = Field(default=None, ge=0, le=2)
    siblings: int | None = Field(default=None, ge=0)
    set: Name | None = None
    sources: SourceNames | None = Field(default=None, description="Kinds and documents that alone are looked in.")


class Retrieved(BaseModel):
    """Nearest first."""

    domain: str
    documents: list[Source]


class AskedPair(Asked):
    """Two texts that a number belongs to."""

    a: Query
    b: Query
    id: str = Field(default="", max_length=256)


class PredictRequest(Asked):
    """Pairs for the regression task."""

    pairs: list[AskedPair] = Field(min_length=1)


class PredictedNeighbour(BaseModel):
    """A known pair that the model was shown."""

    id: str
    a: str
    b: str
    value: float
    distance: float


class Predicted(BaseModel):
    """low, high: hold the true value with probability `level`."""

    id: str
    a: str
    b: str
    value: float
    low: float
    high: float
    level: float
    system: str
    num_shortened: int
    neighbours: list[PredictedNeighbour]


class Predictions(BaseModel):
    """In the order of the pairs."""

    task: str
    predictions: list[Predicted]


class ErrorDetail(BaseModel):
    """OpenAI's fields."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every answer that is not 2xx."""

    error: ErrorDetail


class Health(BaseModel):
    """That the server answers."""

    status: Literal["ok"] = "ok"


class Stats(BaseModel):
    """What the server has done since it started; `recent` only with the admin key."""

    uptime_s: float
    num_active: int
    num_waiting: int
    num_requests: dict[str, dict[str, int]] = Field(description="endpoint -> HTTP status -> requests")
    num_stream_errors: int
    num_reload_errors: int
    latency_s: dict[str, dict[str, float]] = Field(description="endpoint -> p50, p90, p99")
    retrieval_s: dict[str, float]
    first_token_s: dict[str, float]
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float = Field(description="Completion tokens of the last minute, per second.")
    chunks: dict[str, int] = Field(description="domain -> chunks that can be found")
    query_cache: dict[str, int]
    recent: list[dict[str, Any]] | None = None
