"""Many texts at once, each of which may begin and end when it likes (continuous batching: Orca, Yu et al., 2022).

    decoder = BatchedDecoder(model, tokenizer)
    row = decoder.add(Continuation(prompt_ids, max_new_tokens=64))
    while decoder.busy:
        for row, piece in decoder.step(): ...          # one token for every row, one forward pass

Prompts that came since the last step are read and join the rows that are being written; rows that are done leave.
The rows' keys and values end in the same column, and what is padding on the left is never attended to:

    row 1    [ .  .  .  k1 k2 k3 k4 ]      length 4
    row 2    [ k1 k2 k3 k4 k5 k6 k7 ]      length 7: the width

Positions count a row's own tokens and each row draws from a generator of its own, so that a row gets the same text in
any company, but for ties within rounding. Shapes: B rows, T columns, V words in the vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.errors import DataError
from stages.generation.decoding import stop_token_ids
from stages.generation.text_pieces import TextPieces

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Continuation:
    """What is to be written. temperature 0 is greedy; stop: texts before which the continuation ends."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: Sequence[str] = ()

    @property
    def num_tokens(self) -> int:
        """The most that it takes up of a model's context."""
        return len(self.prompt_ids) + self.max_new_tokens


@dataclass(frozen=True)
class Piece:
    """What a row has to show after a step. finish_reason: None until the last piece, then STOP or LENGTH."""

    text: str
    num_completion_tokens: int
    finish_reason: str | None = None


class Row:
    """A continuation that is being written."""

    def __init__(self, asked: Continuation, tokenizer: Any) -> None:
        self.asked = asked
        self.ids: list[int] = []
        self.cancelled = False
        self._pieces = TextPieces(tokenizer, asked.stop)
        self._generator: Any = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and of what is written."""
        return len(self.asked.prompt_ids) + len(self.ids)

    def uniform(self) -> float:
        """The row's next random number in [0, 1)."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self.asked.seed)
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def take(self, token: int, stops: frozenset[int]) -> Piece:
        """The piece that comes of one more token."""
        if token in stops:
            return Piece(self._pieces.rest(), len(self.ids), STOP)
        self.ids.append(token)
        text = self._pieces.add(token)
        if self._pieces.stopped:
            return Piece(text, len(self.ids), STOP)
        if len(self.ids) == self.asked.max_new_tokens:
            text += self._pieces.rest()
            return Piece(text, len(self.ids), STOP if self._pieces.stopped else LENGTH)
        return Piece(text, len(self.ids))


class BatchedDecoder:
    """Continues prompts with one model. Not thread-safe.

    At most `max_batch_size` rows are written at a time, whose keys and values take at most `max_total_tokens` columns
    together, padding included; others wait, first come, first served. After an exception of `step` it is of no use.
    """

    def __init__(self, model: Any, tokenizer: Any, max_batch_size: int = 16, max_total_tokens: int = 16384) -> None:
        self.max_batch_size, self.max_total_tokens = max_batch_size, max_total_tokens
        self.model, self._tokenizer = model, tokenizer
        self._stops = stop_token_ids(model, tokenizer)
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._cache: Any = None  # RowCache of self._rows, all but the newest token of each

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    @property
    def rows(self) -> list[Row]:
        """Those that are being written, and those that wait."""
        return [*self._rows, *self._waiting]

    def add(self, asked: Continuation) -> Row:
        """Raises DataError for an empty prompt, and for what would never fit."""
        if not asked.prompt_ids or asked.max_new_tokens < 1:
            raise DataError("a prompt of at least one token, and at least one new token, are needed")
        if asked.num_tokens > self.max_total_tokens:
            raise DataError(
                f"a prompt of {len(asked.prompt_ids)} tokens and {asked.max_new_tokens} new ones do not fit into "
                f"{self.max_total_tokens} tokens; shorten it, or ask for fewer"
            )
        row = Row(asked, self._tokenizer)
        self._waiting.append(row)
        return row

    def cancel(self, row: Row) -> None:
        """The row leaves before the next step, without a last piece."""
        row.cancelled = True

    def step(self) -> list[tuple[Row, Piece]]:
        """One more token for each row; those whose piece has a finish_reason have left."""
        import torch

        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[tuple[Row, Piece]]:
        self._waiting = deque(row for row in self._waiting if not row.cancelled)
        self._leave({row for row in self._rows if row.cancelled})
        logits = [self._write_on()] if self._rows else []
        for newcomers in self._admitted():
            logits.append(self._read(newcomers))
        if not self._rows:
            return []
        tokens = choose(logits, self._rows)
        written = [(row, row.take(token, self._stops)) for row, token in zip(self._rows, tokens, strict=True)]
        self._leave({row for row, piece in written if piece.finish_reason})
        return written

    def _admitted(self) -> list[list[Row]]:
        """The rows that may join now, those of about the same length together: little of a pass is padding."""
        rows = list(self._rows)
        widest = max((row.asked.num_tokens for row in rows), default=0)
        joining: list[Row] = []
        while self._waiting and len(rows) + len(joining) < self.max_batch_size:
            widest = max(widest, self._waiting[0].asked.num_tokens)
            if (len(rows) + len(joining) + 1) * widest > self.max_total_tokens:
                break
            joining.append(self._waiting.popleft())
        groups: list[list[Row]] = []
        for row in sorted(joining, key=lambda row: -row.length):
            if groups and 2 * row.length > groups[-1][0].length:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def _read(self, rows: list[Row]) -> Any:
        """Reads the prompts of rows that join the others; logits [B, V]."""
        from stages.generation.row_cache import RowCache

        width = max(row.length for row in rows)
        ids = [[0] * (width - row.length) + list(row.asked.prompt_ids) for row in rows]
        cache = RowCache()
        logits = self._forward(ids, [row.length for row in rows], cache)
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)
        self._rows += rows
        return logits

    def _write_on(self) -> Any:
        """Adds the tokens chosen last to the cache; logits [B, V]."""
        return self._forward([[row.ids[-1]] for row in self._rows], [row.length for row in self._rows], self._cache)

    def _forward(self, ids: list[list[int]], lengths: list[int], cache: Any) -> Any:
        """Logits [B, V] after the last column. lengths: of the rows with `ids` in them."""
        import torch

        device, width = self.model.device, max(lengths)
        columns = torch.arange(width, device=device)
        positions = columns - (width - torch.tensor(lengths, device=device)[:, None])  # [B, T]; padding is below 0
        output = self.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=(positions >= 0).long(),
            position_ids=positions.clamp(min=0)[:, -len(ids[0]) :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _leave(self, leaving: set[Row]) -> None:
        """Rows go, the last ones take their places; no more columns stay than the longest row fills."""
        if not leaving:
            return
        stay = [n for n, row in enumerate(self._rows) if row not in leaving]
        movers = [n for n in stay if n >= len(stay)]
        order = [n if self._rows[n] not in leaving else movers.pop() for n in range(len(stay))]
        self._rows = [self._rows[n] for n in order]
        if self._rows:
            self._cache.keep(order, max(row.length for row in self._rows) - 1)  # the newest token is not in it yet
        else:
            self._cache = None


def choose(logits: Sequence[Any], rows: Sequence[Row]) -> list[int]:
    """The next token of each row: the likeliest, or drawn where it has a temperature.

    logits: [B, V] of the rows in their order, in one part or several.
    """
    import torch

    scores = torch.cat(list(logits))
    tokens: list[int] = scores.argmax(-1).tolist()
    if drawing := [n for n, row in enumerate(rows) if row.asked.temperature > 0]:
        drawn = _draw(scores[drawing], [rows[n] for n in drawing])
        for n, token in zip(drawing, drawn, strict=True):
            tokens[n] = token
    return tokens


def _draw(scores: Any, rows: Sequence[Row]) -> list[int]:
    """By the inverse of the cumulative distribution, in the vocabulary's order: rounding moves its steps by as little,
    where in the order of probabilities it would swap words."""
    import torch

    temperatures, top_ps, uniform = (
        torch.tensor(column, dtype=torch.float64, device=scores.device)[:, None]
        for column in (
            [row.asked.temperature for row in rows],
            [row.asked.top_p for row in rows],
            [row.uniform() for row in rows],
        )
    )
    probabilities = _nucleus((scores.double() / temperatures).softmax(-1), top_ps)
    cumulative = probabilities.cumsum(-1)
    tokens: list[int] = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0].tolist()
    return tokens


def _nucleus(probabilities: Any, top_ps: Any) -> Any:
    """0 for what is not among the likeliest words that make up top_p (Holtzman et al., 2020); the likeliest stays."""
    ranked, order = probabilities.sort(-1, descending=True)
    outside = ranked.cumsum(-1) - ranked >= top_ps
    outside[:, 0] = False
    return probabilities.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
