"""From messages to token ids, and untrusted text made harmless: what every prompt of ours has in common.

    format = ChatFormat(tokenizer)
    format.prompt_ids(messages)                 # up to where the assistant begins to write
    format.completion_ids(messages, answer)     # what it has to write, end of turn included

The prompt's ids never depend on the answer: both are tokenised on their own, in training exactly as at inference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stages.core.errors import DataError

Message = dict[str, str]

WORD_JOINER = "\u2060"  # invisible; breaks up a marker without changing how the text reads


class ChatFormat:
    """The chat template and the special tokens of one tokenizer.

    tokenizer: a transformers tokenizer with a chat template, or None where only messages are needed; then there is
    nothing to escape and nothing to tokenise. special: the texts of its special tokens, sorted.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.special = sorted(_special_tokens(tokenizer), key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(re.escape(token) for token in self.special)) if self.special else None
        self.chat_template = getattr(tokenizer, "chat_template", None)
        if tokenizer is not None and not self.chat_template:
            raise DataError("the tokenizer has no chat template: choose an instruction-tuned model, or set one")

    def escape(self, text: str) -> str:
        """Untrusted text that can forge no turn: special tokens in it are broken up."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: match[0][0] + WORD_JOINER + match[0][1:], text)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The chat template applied, up to where the assistant begins to write."""
        text: str = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return text

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt, as the model sees it in training and at inference."""
        ids: list[int] = self.tokenizer(self.prompt_text(messages), add_special_tokens=False)["input_ids"]
        return ids

    def completion_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Token ids that the model has to write: the answer, which is escaped already, and the end-of-turn token."""
        whole: str = self.tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": answer}], tokenize=False
        )
        prompt = self.prompt_text(messages)
        if not whole.startswith(prompt):
            raise DataError("the chat template renders a prompt differently once an answer follows it")
        completion = whole[len(prompt) :]
        end = completion.find(answer)
        if end < 0:
            raise DataError("the chat template changes the answer's text")
        end += len(answer)
        tail = self.tokenizer(completion[end:], add_special_tokens=False)["input_ids"]
        ids: list[int] = self.tokenizer(completion[:end], add_special_tokens=False)["input_ids"]
        ids.extend(tail[:1])  # what follows the end-of-turn token belongs to the next turn
        return ids


def _special_tokens(tokenizer: Any) -> set[str]:
    if tokenizer is None:
        return set()
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {token for token in added | set(tokenizer.all_special_tokens) if len(token) > 1}
