"""Progress bars for people; one line at the end where nobody watches. And for programs: a training's evaluations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields `items` with a bar on stderr when it is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=description, total=total, console=Console(stderr=True), transient=True)


OBSERVERS: list[Callable[[int, float], None]] = []  # of this process; what one raises ends the training


def evaluated(step: int, loss: float) -> None:
    """Says to whoever watches that a training was evaluated, such as a search that may give it up."""
    for observer in OBSERVERS:
        observer(step, loss)
