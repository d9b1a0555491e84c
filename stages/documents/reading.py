"""Files into what a caller makes of their documents, each file read once as long as it does not change.

readings = read_files(files_of(folder), cache, Limits(), num_workers=2, process=cut_into_chunks)
readings[0].reason                     # "": read; else one of blocks.REASONS, and detail for people
readings[0].summary                    # what `process` returned, and the pieces: cache.pieces(readings[0].key)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.core.fingerprint import sha256_file
from stages.core.progress import track
from stages.documents.blocks import REASONS, Document
from stages.documents.document_cache import DocumentCache, Key
from stages.documents.folder import Found
from stages.documents.limits import Limits
from stages.documents.parsing import parse_files

Process = Callable[[Document], tuple[dict[str, Any], list[Any]]]  # document -> summary, pieces: as JSON can hold them

# They tell about this machine at that moment, not about the file: tried again by the next run
PASSING = ("crashed", "memory_limit", "time_limit", "unreadable")


@dataclass(frozen=True)
class Reading:
    """One file's outcome. sha256: "" where the file was not opened."""

    found: Found
    sha256: str = ""
    num_bytes: int = 0
    reason: str = ""
    detail: str = ""
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Under which the cache knows it: its content, and the suffix that says how to read it."""
        return self.sha256, self.found.path.suffix.lower()

    def rejected(self, reason: str, detail: str) -> Reading:
        """The same file, not read; the detail begins with what the reason means."""
        return replace(self, reason=reason, detail=f"{REASONS[reason]}: {detail}" if detail else REASONS[reason])


def read_files(
    files: Sequence[Found], cache: DocumentCache, limits: Limits, num_workers: int, process: Process
) -> list[Reading]:
    """One reading a file, in order. Memory does not grow with the files: their pieces stay in the cache."""
    readings = [_look_at(found, limits) for found in track(files, "comparing documents", len(files))]
    outcomes: dict[Key, dict[str, Any] | None] = {}
    for reading in readings:
        if not reading.reason and reading.key not in outcomes:
            outcomes[reading.key] = cache.summary(reading.key)
    unknown = {
        reading.key: reading.found.path for reading in reversed(readings) if outcomes.get(reading.key, 0) is None
    }
    outcomes.update(_parse(dict(reversed(unknown.items())), cache, limits, num_workers, process))
    return [reading if reading.reason else _with_outcome(reading, outcomes[reading.key]) for reading in readings]


def _look_at(found: Found, limits: Limits) -> Reading:
    """The file's hash; what is too large or cannot be opened is not read to its end."""
    reading = Reading(found)
    if found.reason:
        return reading.rejected(found.reason, "")
    try:
        reading = replace(reading, num_bytes=found.path.stat().st_size)
        if reading.num_bytes > limits.max_file_bytes:
            detail = f"{reading.num_bytes:,} bytes; at most {limits.max_file_bytes:,} are read"
            return reading.rejected("too_large", detail)
        return replace(reading, sha256=sha256_file(found.path))
    except OSError as error:
        return reading.rejected("unreadable", error.strerror or str(error))


def _parse(
    unknown: dict[Key, Path], cache: DocumentCache, limits: Limits, num_workers: int, process: Process
) -> Iterator[tuple[Key, dict[str, Any]]]:
    parsed = parse_files(unknown.values(), limits, num_workers)
    for key, outcome in zip(unknown, track(parsed, "reading documents", len(unknown)), strict=True):
        summary, pieces = process(outcome.document) if outcome.document else ({}, [])
        summary = {**summary, "reason": outcome.reason, "detail": outcome.detail}
        if outcome.reason not in PASSING:
            cache.put(key, summary, pieces)
        yield key, summary


def _with_outcome(reading: Reading, summary: dict[str, Any] | None) -> Reading:
    known = dict(summary or {})
    reason, detail = known.pop("reason"), known.pop("detail")
    return reading.rejected(reason, detail) if reason else replace(reading, summary=known)
