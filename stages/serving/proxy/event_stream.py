"""Server-sent events of a chat stream, from bytes to JSON (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    data: {"choices": [{"index": 0, "delta": {"content": "Lona"}}]}

    data: [DONE]

Lines end at line feeds only: a JSON text may hold the other characters that Python counts as line ends.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

MAX_EVENT_BYTES = 1_000_000
DONE = b"[DONE]"


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The JSON of each event, up to [DONE], which comes out as None. Raises ValueError for anything else."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError("an event without an end")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b":")
            if field == b"data":
                yield None if value.strip() == DONE else json.loads(value)
            elif field not in (b"", b"event", b"id", b"retry"):
                raise ValueError("not an event stream")


def event(value: Any) -> bytes:
    """One event; the text of JSON holds no line feed."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


END = b"data: [DONE]\n\n"
