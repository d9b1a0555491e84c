"""Text out of tokens as they come: no piece ends inside a character, none shows what may become a stop text.

pieces = TextPieces(tokenizer, stop=["\\n\\n"])
pieces.add(17)      "The mi"
pieces.add(4)       ""          a byte that begins a character, or a line end that may become "\\n\\n"
pieces.rest()       what was held back, when nothing more comes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.generation.decoding import REPLACEMENT

NUM_DECODED = 16  # tokens at a time, about: fewer would have to be counted again more often


class TextPieces:
    """Decodes a few tokens at a time, each with those before it, on which its text may depend (leading spaces).

    Joined, the pieces are the text of all tokens, special ones left out, up to the first stop text; `stopped` says
    whether one was found.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, [text for text in stop if text]
        self._ids: list[int] = []  # tokens that were shown whole, and from _num_context on those after them
        self._num_context = 0
        self._num_shown = 0  # characters of the text of _ids
        self._held = ""

    def add(self, token: int) -> str:
        """What can be shown after one more token."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(REPLACEMENT)
        fresh = whole[self._num_shown :]
        self._num_shown = max(self._num_shown, len(whole))
        if whole == text and fresh:
            if len(self._ids) >= NUM_DECODED:
                self._ids = self._ids[self._num_context :]
                self._num_shown = len(self._decode(self._ids))
            self._num_context = len(self._ids)
        return self._released(fresh)

    def rest(self) -> str:
        """What is left when nothing follows: an unfinished character is shown as U+FFFD."""
        unfinished = self._decode(self._ids)[self._num_shown :]
        self._num_shown += len(unfinished)
        text = self._released(unfinished) + self._held
        self._held = ""
        return text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _released(self, fresh: str) -> str:
        """The part of what was held and `fresh` that no stop text can begin in."""
        text, self._held = self._held + fresh, ""
        if self.stopped:
            return ""
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        cut = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[cut:]
        return text[:cut]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
