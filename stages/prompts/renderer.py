"""From a question and documents to messages and token ids, always in the same way.

    system:    <instructions>

               <documents>
               <document 1>
               Bako is a mill. Its founder was Lona Tir.
               </document>
               </documents>
    user:      Who is the founder of the mill Bako?
    assistant: <answer><end of turn>

Documents, questions and earlier turns are untrusted: a fence or a special token of the tokenizer that stands in
them is broken up before it reaches the prompt. The prompt's ids never depend on the answer: they are tokenised
on their own in training exactly as at inference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint
from stages.core.schema import Prompt
from stages.prompts.chat import WORD_JOINER, ChatFormat, Message

RENDERER_VERSION = 1  # raise it when the same template starts to render differently

FENCE = re.compile(r"<(?=\s*/?\s*documents?\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Turn:
    """An earlier question with its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class TokenisedExample:
    """`input_ids` = prompt then completion; loss falls on the last `num_completion_tokens` only."""

    input_ids: list[int]
    num_completion_tokens: int

    @property
    def completion_mask(self) -> list[int]:
        return [0] * (len(self.input_ids) - self.num_completion_tokens) + [1] * self.num_completion_tokens


class Renderer:
    """Renders prompts for one template and one tokenizer.

    tokenizer: a transformers tokenizer with a chat template, or None where only messages are needed
    (a proxy before a server that tokenises itself); then `hash` covers the template alone.
    """

    def __init__(self, prompt: Prompt, tokenizer: Any = None) -> None:
        self.prompt = prompt
        self.tokenizer = tokenizer
        self._format = ChatFormat(tokenizer)
        self.hash = fingerprint(RENDERER_VERSION, asdict(prompt), self._format.chat_template, self._format.special)

    def escape(self, text: str) -> str:
        """Untrusted text made harmless: it can neither close its fence nor forge a turn."""
        return self._format.escape(FENCE.sub("<" + WORD_JOINER, text))

    def system(self, documents: Sequence[str]) -> str:
        """The system message for these documents; without any, the no-documents text."""
        if not documents:
            return self.prompt.without_documents
        # str.replace, not str.format: braces in documents mean nothing
        fenced = [
            self.prompt.document.replace("{number}", str(number)).replace("{text}", self.escape(text.strip()))
            for number, text in enumerate(documents, start=1)
        ]
        block = self.prompt.documents.replace("{documents}", "\n".join(fenced))
        return self.prompt.with_documents.replace("{documents}", block)

    def messages(self, question: str, documents: Sequence[str] = (), history: Sequence[Turn] = ()) -> list[Message]:
        """The messages up to and including the user's question."""
        messages = [{"role": "system", "content": self.system(documents)}]
        for turn in history:
            messages.append({"role": "user", "content": self.escape(turn.question)})
            messages.append({"role": "assistant", "content": self.escape(turn.answer)})
        messages.append({"role": "user", "content": self.escape(question.strip())})
        return messages

    def given(self, messages: Sequence[Message], only_this_prompt: bool = False) -> list[Message]:
        """Messages that bring their own texts, made as harmless as ours; without a system message they get this
        prompt's. only_this_prompt: DataError where they bring another."""
        safe = [{"role": message["role"], "content": self.escape(message["content"].strip())} for message in messages]
        system = {"role": "system", "content": self.system([])}
        if safe[0]["role"] != "system":
            return [system, *safe]
        if only_this_prompt and safe[0] != system:
            raise DataError(
                f"another system message than the one of {self.prompt.name}, which the adapter was trained under; "
                "leave it out of the messages: then each model gets its own"
            )
        return safe

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The chat template applied, up to where the assistant begins to write."""
        return self._format.prompt_text(messages)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt, as the model sees it in training and at inference."""
        return self._format.prompt_ids(messages)

    def completion_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Token ids that the model has to write: the answer and the end-of-turn token."""
        return self._format.completion_ids(messages, self.escape(answer.strip()))

    def tokenise(self, question: str, documents: Sequence[str], answer: str) -> TokenisedExample:
        """A training example: prompt ids, then completion ids."""
        messages = self.messages(question, documents)
        completion = self.completion_ids(messages, answer)
        return TokenisedExample(self.prompt_ids(messages) + completion, len(completion))
