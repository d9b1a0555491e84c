"""An Ollama Modelfile for a GGUF file: template, end of an answer, system prompt, context length.

Ollama does not read Jinja; its template is Go's. A chat template that puts a fixed text before and after each turn can
be said in both, and which texts those are is found by rendering a conversation of markers:

    <bos><|system|>\\nSYSTEM<|end|>\\n<|user|>\\nUSER<|end|>\\n<|assistant|>\\nANSWER<|end|>\\n<|user|>\\n...

The pieces are then put together again and compared with what the tokenizer renders; a template that does more than
that (dates, thinking blocks cut from earlier turns) is refused instead of being told almost right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from stages.core.errors import DataError
from stages.export.gguf_tokenizer import adds_bos
from stages.prompts.chat import Message

SYSTEM, USER, ANSWER, LAST = "gtsystemgt", "gtusergt", "gtanswergt", "gtlastgt"
QUOTES = '"""'


@dataclass(frozen=True)
class TurnTexts:
    """What stands around each turn. begin: before everything (a begin token that the runtime does not add itself).

    What opens an answer belongs to the end of the user's turn, as an answer always follows it.
    """

    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, as Ollama puts it together."""
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        return self.begin + "".join(m["content"].join(around[m["role"]]) for m in messages)

    def go_template(self) -> str:
        """The same as a Go template. Raises DataError where a text holds what Go or the Modelfile would interpret."""
        texts = (self.begin, *self.system, *self.user, *self.assistant)
        if any("{{" in text or QUOTES in text for text in texts):
            raise DataError('the chat template writes {{ or """, which a Modelfile cannot hold as text')
        turns = [
            f'{{{{ {word} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for word, role, (before, after) in (
                ("if", "system", self.system),
                ("else if", "user", self.user),
                ("else if", "assistant", self.assistant),
            )
        ]
        return f"{self.begin}{{{{ range .Messages }}}}{''.join(turns)}{{{{ end }}}}{{{{ end }}}}"


def turn_texts(tokenizer: Any) -> TurnTexts:
    """The texts around the turns of a tokenizer's chat template. Raises DataError where it cannot be told this way."""
    conversation = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": LAST},
    ]
    text: str = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    parts = []
    for marker in (SYSTEM, USER, ANSWER, LAST):
        before, found, text = text.partition(marker)
        if not found:
            raise DataError("the chat template leaves out or reorders turns; Ollama's template cannot say that")
        parts.append(before)
    head, after_system, after_user, after_answer = parts
    bos = tokenizer.bos_token or ""
    begin = bos if bos and head.startswith(bos) else ""
    opening = _user_opening(tokenizer, begin, after_system, after_answer)
    texts = TurnTexts(
        "" if adds_bos(tokenizer) else begin,
        (head.removeprefix(begin), after_system.removesuffix(opening)),
        (opening, after_user),
        ("", after_answer.removesuffix(opening)),
    )
    _check(tokenizer, texts, begin, conversation)
    return texts


def _user_opening(tokenizer: Any, begin: str, after_system: str, after_answer: str) -> str:
    """What opens a user's turn: what stands before one that comes first, where that fits, else all that is shared."""
    alone = tokenizer.apply_chat_template([{"role": "user", "content": USER}], tokenize=False)
    opening: str = alone.partition(USER)[0].removeprefix(begin)
    if opening and after_system.endswith(opening) and after_answer.endswith(opening):
        return opening
    pairs = zip(reversed(after_system), reversed(after_answer), strict=False)
    shared = takewhile(lambda pair: pair[0] == pair[1], pairs)
    return "".join(a for a, _ in shared)[::-1]


def _check(tokenizer: Any, texts: TurnTexts, begin: str, conversation: list[Message]) -> None:
    for messages in (conversation[:2], conversation, [*conversation[:3], conversation[1], *conversation[2:]]):
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if begin.removeprefix(texts.begin) + texts.render(messages) != wanted:
            raise DataError(
                "the chat template does more than put fixed texts around turns; Ollama's template cannot say that. "
                "Export without GGUF (export_model.gguf: []), or serve with a program that reads Jinja"
            )


def modelfile(gguf: str, texts: TurnTexts, stops: Sequence[str], system: str, num_ctx: int) -> str:
    """The text of a Modelfile (https://github.com/ollama/ollama/blob/main/docs/modelfile.md).

    gguf: name of the file beside it. stops: texts that end an answer. num_ctx: tokens. Raises DataError for a system
    prompt that it cannot hold.
    """
    if QUOTES in system:
        raise DataError('the system prompt holds """, which a Modelfile cannot hold as text')
    lines = [f"FROM ./{gguf}", f"TEMPLATE {QUOTES}{texts.go_template()}{QUOTES}"]
    lines += [f"SYSTEM {QUOTES}{system}{QUOTES}"] if system else []
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join([*lines, f"PARAMETER num_ctx {num_ctx}"]) + "\n"
