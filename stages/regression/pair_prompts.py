"""The one renderer of pairs: training, evaluation and serving show the model the same ids.

    system:    How do the prices of two contracts correlate? Known pairs:
               A: The bridge Dansun wins. ...
               B: The tower Leven rises. ...
               0.84
    user:      A: The island Rinwin wins. ...
               B: The guild Detu rises. ...
    assistant: {"correlation": -0.42}<end of turn>

Texts are untrusted: each is made one line, so that it cannot pass for a further neighbour, and special tokens in it
are broken up. The answer's ids never depend on the pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.core.fingerprint import fingerprint
from stages.prompts.chat import ChatFormat, Message
from stages.regression.answer import format_answer, show_neighbour, show_pair
from stages.regression.pairs import plain
from stages.regression.shortening import num_shortened, shorten_evenly
from stages.regression.task import RegressionTask

PAIR_PROMPT_VERSION = 1  # raise it when the same texts start to render differently


@dataclass(frozen=True)
class Neighbour:
    """A known pair near the one that is asked about. distance: Euclidean, of the embeddings."""

    a: str
    b: str
    value: float
    distance: float = 0.0
    id: str = ""


@dataclass(frozen=True)
class RenderedPair:
    """The prompt's token ids, and how many of its texts had to be shortened."""

    input_ids: list[int]
    num_shortened: int


class PairRenderer:
    """Renders the prompts of one task for one tokenizer. max_length: of a prompt, in tokens; 0: no bound."""

    def __init__(self, task: RegressionTask, tokenizer: Any, max_length: int = 0) -> None:
        self.task = task
        self.max_length = max_length
        self._format = ChatFormat(tokenizer)
        answer = (task.json_field, task.rationale_field, task.low, task.high, task.decimals)
        chat = (self._format.chat_template, self._format.special)
        self.hash = fingerprint(PAIR_PROMPT_VERSION, asdict(task.prompt), *answer, *chat)

    def messages(self, a: str, b: str, neighbours: Sequence[Neighbour] = ()) -> list[Message]:
        """System message, with the neighbours where there are any, nearest first; and the pair as the user's turn."""
        return self._messages(_texts(a, b, neighbours), [neighbour.value for neighbour in neighbours])

    def prompt_ids(self, a: str, b: str, neighbours: Sequence[Neighbour] = (), reserve: int = 0) -> RenderedPair:
        """The ids up to where the answer begins, at most `max_length` less `reserve` tokens for the answer.

        Raises DataError where they are more even with every text shortened as far as it may be.
        """
        whole, values = _texts(a, b, neighbours), [neighbour.value for neighbour in neighbours]

        def ids(texts: list[str]) -> list[int]:
            return self._format.prompt_ids(self._messages(texts, values))

        if not self.max_length:
            return RenderedPair(ids(whole), 0)
        most = self.max_length - reserve
        where = f"the pair {a:.30} | {b:.30}: a prompt with {len(values)} neighbours in {most} tokens"
        texts = shorten_evenly(whole, lambda texts: len(ids(texts)) <= most, where)
        return RenderedPair(ids(texts), num_shortened(whole, texts))

    def answer_ids(self, value: float, rationale: str = "") -> list[int]:
        """The ids that the model has to write, end of turn included. ValueError for a value outside the range."""
        answer = format_answer(self.task, value, plain(rationale))
        return self._format.completion_ids(self.messages("A", "B"), self._format.escape(answer))

    def token_text(self, token: int) -> str:
        """What a token of an answer says."""
        text: str = self._format.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

    def _messages(self, texts: Sequence[str], values: Sequence[float]) -> list[Message]:
        """texts: a and b of the pair, then of each neighbour."""
        a, b, *known = map(self._format.escape, texts)
        prompt = self.task.prompt
        neighbours = [
            show_neighbour(self.task, first, second, value)
            for first, second, value in zip(known[::2], known[1::2], values, strict=True)
        ]
        shown = prompt.system_with_neighbours if neighbours else prompt.system
        system = shown.format(neighbours="\n".join(neighbours))
        return [{"role": "system", "content": system}, {"role": "user", "content": show_pair(self.task, a, b)}]


def _texts(a: str, b: str, neighbours: Sequence[Neighbour]) -> list[str]:
    pairs = [(a, b), *((neighbour.a, neighbour.b) for neighbour in neighbours)]
    return [plain(text) for pair in pairs for text in pair]
