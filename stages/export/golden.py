"""Golden prompts: what a model was asked, and what it wrote before it was exported; every export must repeat it.

    {"id": "qa-0017", "messages": [...], "text": "<|bos|>...", "input_ids": [1, 3, ...], "answer": "Lona Tir."}

They travel with the export (golden.jsonl), so that whoever loads it with another program can ask the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import read_jsonl
from stages.generation.decoding import generate
from stages.knowledge.records import Example
from stages.prompts.chat import ChatFormat, Message
from stages.prompts.renderer import Renderer


@dataclass(frozen=True)
class Golden:
    """text, input_ids: of the prompt, up to where the assistant begins. answer: greedy, without special tokens."""

    id: str
    messages: list[Message]
    text: str
    input_ids: list[int]
    answer: str = ""

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def golden_prompts(file: Path, renderer: Renderer, num_prompts: int, only_this_prompt: bool = False) -> list[Golden]:
    """The first prompts of a file: examples of the pipeline's, or chats (`messages`) less their last answer.

    only_this_prompt: the renderer's is the adapter's own. Raises DataError where there is none, or under another one.
    """
    rows = read_jsonl(file)[:num_prompts]
    if not rows:
        raise DataError(f"{file}: no examples, so nothing to compare an export on; point export_model.examples to some")
    chat = ChatFormat(renderer.tokenizer)
    golden = []
    for row in rows:
        messages = _messages(row, renderer, only_this_prompt)
        golden.append(Golden(str(row["id"]), messages, chat.prompt_text(messages), chat.prompt_ids(messages)))
    return golden


def are_chats(file: Path) -> bool:
    """Whether a file of examples brings its own prompts (`messages`), which no template of ours renders."""
    return any("messages" in row for row in read_jsonl(file)[:1])


def _messages(row: dict[str, Any], renderer: Renderer, only_this_prompt: bool) -> list[Message]:
    if "messages" not in row:
        example = Example.from_row(row)
        return renderer.messages(example.question, example.documents)
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in row["messages"]]
    return renderer.given(turns[:-1] if turns[-1]["role"] == "assistant" else turns, only_this_prompt)


def greedy_answers(model: Any, tokenizer: Any, golden: Sequence[Golden], max_new_tokens: int) -> list[str]:
    """What the model writes after each prompt; one batch, so that two models round alike."""
    return generate(model, tokenizer, [one.input_ids for one in golden], max_new_tokens, max(1, len(golden)), "ask")


def check_prompts(tokenizer: Any, golden: Sequence[Golden], what: str) -> None:
    """Raises DataError where a tokenizer that was read back renders or cuts a prompt differently; names the prompt."""
    chat = ChatFormat(tokenizer)
    for one in golden:
        if chat.prompt_text(one.messages) != one.text:
            raise DataError(f"{what}: the chat template that was read back renders prompt {one.id} differently")
        ids = chat.prompt_ids(one.messages)
        if ids != one.input_ids:
            place = next((n for n, (a, b) in enumerate(zip(ids, one.input_ids, strict=False)) if a != b), len(ids))
            raise DataError(f"{what}: prompt {one.id} has other token ids from place {place} on after being read back")
