"""Server-sent events of a chat stream, from bytes to JSON (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    data: {"choices": [{"index": 0, "delta": {"content": "Lona"}}]}

    data: [DONE]

Lines end at line feeds only: a JSON text may hold the other characters that Python counts as line ends.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

MAX_EVENT_BYTES = 1_000_000
DONE = b"[DONE]"
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one at each call


class EventReader:
    """Takes bytes as they come and gives the JSON of each event that is complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """[DONE] comes out as None. Raises ValueError for what is no event stream of JSON."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ValueError("an event without an end")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b":")
            if field == b"data":
                yield None if value.strip() == DONE else json.loads(value)
            elif field not in (b"", b"event", b"id", b"retry"):
                raise ValueError("not an event stream")


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The JSON of each event, up to [DONE], which comes out as None. Raises ValueError for anything else."""
    reader = EventReader()
    async for chunk in chunks:
        for value in reader.feed(chunk):
            yield value


def event(value: Any) -> bytes:
    """One event; the text of JSON holds no line feed."""
    return b"data: " + _to_json(value).encode("utf-8") + b"\n\n"


END = b"data: [DONE]\n\n"
