"""What conf/generate_sft may set: where the model is, what it is asked for, what is kept of its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING

from stages.core.schema import VARIABLE_NAME, one_of

KINDS = ("openai", "local")
METHODS = ("instruct", "continue_chat")
FORMS = ("pair", "choice")
RESPONSE_FORMATS = ("json_schema", "json_object", "text")  # from the strictest to what every server understands


@dataclass
class Provider:
    """Who writes: an OpenAI-compatible server (`openai`), or the configured base model in this process (`local`).

    All but `kind` is about a server. api_key_env names an environment variable; the key itself stands in no file and
    no message of ours.
    """

    kind: str = MISSING
    temperature: float = 0.7
    max_tokens: int = 2048  # of an answer; 0: not sent, the server decides
    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    timeout_s: float = 120.0  # of a whole request
    max_concurrent: int = 4
    requests_per_minute: float = 0.0  # 0: no limit
    max_attempts: int = 6
    backoff_s: float = 1.0  # before the second attempt; doubled before each further one
    response_format: str = "auto"  # or one of json_schema, json_object, text
    extra: dict[str, Any] = field(default_factory=dict)  # sent as it is, such as {seed: 1}
    price_per_million_input: float = 0.0  # of tokens, in any currency
    price_per_million_output: float = 0.0

    def __post_init__(self) -> None:
        one_of(self.kind, KINDS, "provider.kind")
        one_of(self.response_format, ("auto", *RESPONSE_FORMATS), "provider.response_format")
        if self.api_key_env and not VARIABLE_NAME.fullmatch(self.api_key_env):
            # without its value, which may be the key
            raise ValueError("provider.api_key_env: give the name of an environment variable, such as OPENAI_API_KEY")
        if self.kind == "openai":
            self._check_server()
        if self.max_concurrent < 1 or self.max_attempts < 1:
            raise ValueError("provider: max_concurrent and max_attempts must be at least 1")

    def _check_server(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("provider.base_url: give the server's URL, such as http://127.0.0.1:11434/v1")
        if url.username or url.password or url.query:
            raise ValueError("provider.base_url: no user, password or query in it; see provider.api_key_env")
        if not self.model:
            raise ValueError("provider.model: give the name by which the server knows the model")


@dataclass
class Local:
    """How the base model writes in this process; a model's own file may set it."""

    temperature: float = MISSING
    max_tokens: int = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.batch_size < 1:
            raise ValueError("local: max_tokens and batch_size must be at least 1")


@dataclass
class Style:
    """A manner of question and answer.

    form: `pair` (a question, an answer) or `choice` (a question with options, one of them right).
    frame_question, frame_answer: what goes around {question} and {answer} of a model that follows no instructions;
    a style without frame_answer needs one that does. min_grounded_share: in place of the filters' own. may_invent:
    names and numbers need not stand in the chunk, as in a problem about a person made up for it.
    """

    instruction: str = MISSING
    form: str = "pair"
    frame_question: str = "{question}"
    frame_answer: str = ""
    min_grounded_share: float | None = None
    may_invent: bool = False

    def __post_init__(self) -> None:
        one_of(self.form, FORMS, "styles: form")
        if self.frame_answer and "{answer}" not in self.frame_answer:
            raise ValueError("styles: frame_answer: the placeholder {answer} is missing")
        if "{question}" not in self.frame_question:
            raise ValueError("styles: frame_question: the placeholder {question} is missing")


@dataclass
class Wording:
    """The texts of a request to a model that follows instructions.

    Placeholders: {document}, {instruction}, {example} (of the JSON), {count}, {language}, {audience}.
    """

    system: str = MISSING
    user: str = MISSING
    potential_questions: str = MISSING  # the instruction for questions without answers

    def __post_init__(self) -> None:
        for placeholder in ("{document}", "{instruction}", "{example}"):
            if placeholder not in self.user:
                raise ValueError(f"wording.user: the placeholder {placeholder} is missing")


@dataclass
class Filters:
    """What is kept; lengths in characters."""

    min_question_chars: int = MISSING
    max_question_chars: int = MISSING
    min_answer_chars: int = MISSING
    max_answer_chars: int = MISSING
    min_grounded_share: float = MISSING  # of an answer's content words that stand in the chunk
    min_confidence: float = MISSING  # of the answer's least likely token; a server does not tell
    near_duplicate_similarity: float = MISSING  # Jaccard of word trigrams, within a style

    def __post_init__(self) -> None:
        if not 0 <= self.min_grounded_share <= 1:
            raise ValueError("filters.min_grounded_share: between 0 and 1")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError("filters.min_confidence: between 0 and 1")
        if not 0 < self.near_duplicate_similarity <= 1:
            raise ValueError("filters.near_duplicate_similarity: above 0 and at most 1")
