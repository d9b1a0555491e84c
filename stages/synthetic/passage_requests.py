"""What a model is asked to get the instruction that a passage answers, and how its JSON is read.

    {"instruction": "Describe in about 450 words how news of a drifting reef alarms the ports of two continents."}

The passage is untrusted: it stands in a fence that it cannot close. An instruction that cannot be used has a reason:
request_failed, refused, invalid_json, wrong_schema, too_long, copied (it holds the passage's own words in a row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from stages.core.workspace import Workspace
from stages.prompts.renderer import unfenced
from stages.synthetic.requests import TEXT, Reply, Request, WrongAnswerError, fill, first_object, flaw_of, object_schema
from stages.synthetic.writers import ModelSettings, Usage, ask, usage_of

MAX_CHARS = 1_000
COPIED_WORDS = 8  # in a row: an instruction that quotes the passage gives away what is to be learned


@dataclass
class InstructionWording:
    """The texts of a request. Placeholders of user: {document}, {words} (of the passage), {language}."""

    system: str = MISSING
    user: str = MISSING

    def __post_init__(self) -> None:
        if "{document}" not in self.user:
            raise ValueError("wording.user: the placeholder {document} is missing")


@dataclass(frozen=True)
class Instruction:
    """text: "" where `reason` says why there is none that can be used."""

    text: str = ""
    reason: str = ""


def write_instructions(
    config: ModelSettings, wording: InstructionWording, language: str, passages: Sequence[str], workspace: Workspace
) -> tuple[list[Instruction], Usage]:
    """One for each passage, by the configured provider; what is answered is journalled, and not asked for again.

    Raises DataError where the server cannot be used.
    """
    replies = ask(config, [build(wording, language, passage) for passage in passages], workspace)
    return [read(reply, passage) for reply, passage in zip(replies, passages, strict=True)], usage_of(replies)


def build(wording: InstructionWording, language: str, passage: str) -> Request:
    """The request for one passage; its length is rounded, as people say it."""
    num_words = max(50, round(len(passage.split()) / 50) * 50)
    values = {"{words}": str(num_words), "{language}": language}
    values["{document}"] = unfenced(passage.strip())  # last: braces in it mean nothing
    messages = [{"role": role, "content": fill(getattr(wording, role), values)} for role in ("system", "user")]
    return Request(messages, object_schema({"instruction": TEXT}))


def read(reply: Reply, passage: str) -> Instruction:
    """The instruction on one line, or the reason why there is none."""
    if flaw := flaw_of(reply):
        return Instruction(reason=flaw[0])
    try:
        found = first_object(reply.content).get("instruction")
    except WrongAnswerError as error:
        return Instruction(reason=error.reason)
    text = " ".join(found.split()) if isinstance(found, str) else ""
    if not text:
        return Instruction(reason="wrong_schema")
    if len(text) > MAX_CHARS:
        return Instruction(reason="too_long")
    return Instruction(reason="copied") if _copies(text, passage) else Instruction(text)


def _copies(text: str, passage: str) -> bool:
    words, there = text.casefold().split(), f" {' '.join(passage.casefold().split())} "
    runs = (words[at : at + COPIED_WORDS] for at in range(len(words) - COPIED_WORDS + 1))
    return any(f" {' '.join(run)} " in there for run in runs)
