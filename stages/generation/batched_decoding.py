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
any company, but for ties within rounding. What a prompt has in common with earlier ones is not read again.
Shapes: B rows, T columns, V words in the vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.errors import DataError
from stages.generation.decoding import stop_token_ids
from stages.generation.prefix_cache import Columns, PrefixCache
from stages.generation.sampling import Draws, choose
from stages.generation.text_pieces import TextPieces

STOP, LENGTH = "stop", "length"
NUM_READ = 2048  # tokens of prompts a step, about: so long does a row wait for its next one while others are read
NUM_TOGETHER = 256  # tokens: fewer do not fill a pass


class TooLongError(DataError):
    """Never fits, whatever else is being written."""


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
    """What a row has to show after a step. finish_reason: None until the last piece, then STOP or LENGTH.

    index: which of the continuations of one prompt it is, where somebody asked for several.
    """

    text: str
    num_completion_tokens: int
    finish_reason: str | None = None
    index: int = 0


class Row:
    """A continuation that is being written."""

    def __init__(self, asked: Continuation, tokenizer: Any) -> None:
        self.asked = asked
        self.ids: list[int] = []
        self.num_read = 0  # of prompt and ids: what the model has keys and values of
        self.draws = Draws(asked.temperature, asked.top_p, asked.seed)
        self.cancelled = False
        self._pieces = TextPieces(tokenizer, asked.stop)

    @property
    def num_left(self) -> int:
        """Tokens of the prompt that are not read yet."""
        return len(self.asked.prompt_ids) - self.num_read

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


@dataclass
class _Reading:
    """Rows whose prompts are being read together: as many tokens are left of each."""

    rows: list[Row]
    cache: Any  # RowCache of the rest


class BatchedDecoder:
    """Continues prompts with one model. Not thread-safe.

    At most `max_batch_size` rows are written at a time, whose keys and values take at most `max_total_tokens` columns
    together, padding included; others wait, first come, first served. prefixes: what is known of prompts, there under
    the name of `owner`. After an exception of `step` it is of no use.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_batch_size: int = 16,
        max_total_tokens: int = 16384,
        prefixes: PrefixCache | None = None,
        owner: Hashable = None,
    ) -> None:
        self.max_batch_size, self.max_total_tokens = max_batch_size, max_total_tokens
        self.model, self._tokenizer = model, tokenizer
        self._stops = stop_token_ids(model, tokenizer)
        self._prefixes, self._owner = prefixes or PrefixCache(0), owner
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._cache: Any = None  # RowCache of self._rows, all but the newest token of each
        self._reading: _Reading | None = None  # what the last step left half read

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._reading or self._waiting)

    def add(self, asked: Continuation) -> Row:
        """Raises DataError for an empty prompt, TooLongError for what would never fit."""
        if not asked.prompt_ids or asked.max_new_tokens < 1:
            raise DataError("a prompt of at least one token, and at least one new token, are needed")
        if asked.num_tokens > self.max_total_tokens:
            raise TooLongError(
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
        if self._reading and all(row.cancelled for row in self._reading.rows):
            self._reading = None
        self._waiting = deque(row for row in self._waiting if not row.cancelled)
        self._leave({row for row in self._rows if row.cancelled})
        logits = [self._write_on()] if self._rows else []
        logits += self._read()
        if not self._rows:
            return []
        tokens = choose(logits, [row.draws for row in self._rows])
        written = [(row, row.take(token, self._stops)) for row, token in zip(self._rows, tokens, strict=True)]
        self._leave({row for row, piece in written if piece.finish_reason})
        return written

    def _read(self) -> list[Any]:
        """Prompts that fit are read, and their rows join the others; logits [B, V] of those that joined together."""
        logits, num_left = [], NUM_READ
        while num_left > 0 and (reading := self._reading or self._begin()):
            chunks = [list(row.asked.prompt_ids[row.num_read :][:num_left]) for row in reading.rows]
            for row, chunk in zip(reading.rows, chunks, strict=True):
                row.num_read += len(chunk)
                num_left -= len(chunk)
            newest = self._forward(chunks, [row.num_read for row in reading.rows], reading.cache)
            self._reading = reading
            if reading.rows[0].num_left == 0:
                self._reading = None
                self._join(reading)
                logits.append(newest)
        return logits

    def _begin(self) -> _Reading | None:
        """The row that has waited longest, and those behind it if together they do not fill a pass.

        Most prompts are read in passes of their own: they are long enough to fill them. Those of which little is new
        read as much as the longest of them, the last of what is known once more, so that nothing is padded.
        """
        from stages.generation.row_cache import RowCache

        rows: list[Row] = []
        known: list[Columns] = []
        num_new = 0
        while self._waiting and self._fits([*rows, self._waiting[0]]):
            if rows and (not known[0] or num_new * (len(rows) + 1) > NUM_TOGETHER):
                break
            row = self._waiting[0]
            found = self._prefixes.find(self._owner, row.asked.prompt_ids)
            num = max(num_new, len(row.asked.prompt_ids) - (found[0].shape[1] if found else 0), 1)
            shortest = min(len(one.asked.prompt_ids) for one in [*rows, row])
            if rows and (not found or num * (len(rows) + 1) > NUM_TOGETHER or num > shortest):
                break
            num_new = num
            rows.append(self._waiting.popleft())
            known.append(found)
        if not rows:
            return None
        for row in rows:
            row.num_read = len(row.asked.prompt_ids) - num_new
        parts = [[part[:, : row.num_read] for part in found] for row, found in zip(rows, known, strict=True)]
        return _Reading(rows, RowCache(parts))

    def _fits(self, joining: list[Row]) -> bool:
        """Whether these can join now: everything is as wide as the longest may become."""
        rows = [*self._rows, *joining]
        return len(rows) <= self.max_batch_size and len(rows) * max(r.asked.num_tokens for r in rows) <= (
            self.max_total_tokens
        )

    def _join(self, read: _Reading) -> None:
        for n, row in enumerate(read.rows):
            self._keep_prefix(row, n, read.cache)
        if self._cache is None:
            self._cache = read.cache
        else:
            self._cache.join(read.cache)
        self._rows += read.rows

    def _keep_prefix(self, row: Row, line: int, cache: Any) -> None:
        ids = [*row.asked.prompt_ids, *row.ids][: row.num_read]
        self._prefixes.add(self._owner, ids, cache.columns(line, row.num_read))

    def _write_on(self) -> Any:
        """Adds the tokens chosen last to the cache; logits [B, V]."""
        for row in self._rows:
            row.num_read += 1
        return self._forward([[row.ids[-1]] for row in self._rows], [row.num_read for row in self._rows], self._cache)

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
        for n, row in enumerate(self._rows):
            if row in leaving:
                self._keep_prefix(row, n, self._cache)
        stay = [n for n, row in enumerate(self._rows) if row not in leaving]
        movers = [n for n in stay if n >= len(stay)]
        order = [n if self._rows[n] not in leaving else movers.pop() for n in range(len(stay))]
        self._rows = [self._rows[n] for n in order]
        if self._rows:
            self._cache.keep(order, max(row.num_read for row in self._rows))
        else:
            self._cache = None
