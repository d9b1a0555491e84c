"""What models are compared on: prompts from a file, and an author's own text.

    {"prompt": "Write about the sea."}                                       or a line of a .txt file
    {"messages": [{"role": "system", ...}, {"role": "user", ...}, ...]}      as prepare_style and exports have them

What the assistant says last in `messages` is no part of the prompt: it is what the author wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stages.core.errors import DataError
from stages.core.jsonl import Line
from stages.core.ledger import Ledger
from stages.core.record_files import iterate_records, read_text
from stages.core.workspace import Workspace
from stages.prompts.chat import Message
from stages.style.examples import read_examples

ROLES = ("system", "user", "assistant")
MAX_PASSAGES = 64  # of held-out text that losses are measured on, evenly spread
PIECE_CHARS = 3_000  # of a plain text that stands for another author

Item = TypeVar("Item")


@dataclass(frozen=True)
class AskedPrompt:
    """origin: file:line. messages: up to the user's last.

    reference: what the author wrote, where the prompt came from one of his passages.
    """

    origin: str
    messages: tuple[Message, ...]
    reference: str = ""

    @property
    def text(self) -> str:
        """What the user says last."""
        return self.messages[-1]["content"]


@dataclass
class AuthorText:
    """training, held_out: passages of the author. others: held-out passages of other authors, by their names."""

    name: str
    training: list[str]
    held_out: list[str]
    others: dict[str, list[str]] = field(default_factory=dict)

    @property
    def all_others(self) -> list[str]:
        return [passage for passages in self.others.values() for passage in passages]


def read_prompts(path: Path, ledger: Ledger) -> list[AskedPrompt]:
    """The usable prompts; the others go to the ledger: broken_record, no_prompt, empty_prompt.

    Raises DataError where the file is missing or no text.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of prompts")
    prompts = []
    for line in _lines(path):
        ledger.read()
        if line.error:
            ledger.reject(line.origin, "broken_record", line.error)
            continue
        try:
            prompts.append(_prompt(line))
        except ValueError as error:
            reason, _, detail = str(error).partition(": ")
            ledger.reject(line.origin, reason, detail)
    return prompts


def _lines(path: Path) -> Iterator[Line]:
    if path.suffix.lower() not in (".txt", ".md"):
        yield from iterate_records(path)
        return
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if text.strip():
            yield Line(f"{path.name}:{number}", {"prompt": text}, "", number)


def _prompt(line: Line) -> AskedPrompt:
    """Raises ValueError with "reason: detail"."""
    messages = line.value.get("messages")
    if messages is None:
        text = line.value.get("prompt", line.value.get("question"))
        messages = [{"role": "user", "content": text}]
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise ValueError("no_prompt: expected a text `prompt`, or `messages` with role and content")
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    reference = plain.pop()["content"] if plain and plain[-1]["role"] == "assistant" else ""
    if not plain or plain[-1]["role"] != "user" or not plain[-1]["content"].strip():
        raise ValueError("empty_prompt: the user says nothing")
    return AskedPrompt(line.origin, tuple(plain), reference)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def read_author(workspace: Workspace, domain: str, name: str, others: Sequence[str]) -> AuthorText | None:
    """The author's passages as prepare_style left them, and those of the other authors.

    name "": the domain's only writer, or None where there is none. others: writers of the domain, or files of plain
    text; none given: all other writers. Raises DataError for a name that is none, or where one must be chosen.
    """
    folder = workspace.inputs / "data" / domain / "style"
    writers = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not name and len(writers) > 1:
        raise DataError(f"{folder}: several writers; give --author {' or '.join(writers)}")
    if not name and not writers:
        return None
    name = name or writers[0]
    if name not in writers:
        raise DataError(f"--author {name}: not one of {', '.join(writers) or 'no writers at all'} in {folder}")
    wanted = list(others) or [writer for writer in writers if writer != name]
    texts = {other: _other_passages(folder, other) for other in wanted if other != name}
    training, held_out = (_passages(folder / name / f"{part}.jsonl") for part in ("train", "validation"))
    return AuthorText(name, training, spread(held_out), {other: spread(passages) for other, passages in texts.items()})


def _passages(path: Path) -> list[str]:
    return [example.passage for example in read_examples(path)]


def _other_passages(folder: Path, other: str) -> list[str]:
    if (folder / other / "validation.jsonl").is_file():
        return _passages(folder / other / "validation.jsonl")
    path = Path(other)
    if not path.is_file():
        raise DataError(f"--other {other}: neither a writer in {folder} nor a file of plain text")
    text = read_text(path)
    pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
    if not text.strip():
        raise DataError(f"--other {other}: the file is empty")
    return [piece for piece in pieces if piece.strip()]


def spread(items: Sequence[Item], limit: int = MAX_PASSAGES) -> list[Item]:
    """At most `limit` of them (0: all), evenly spread, in order."""
    if not 0 < limit < len(items):
        return list(items)
    return [items[n * len(items) // limit] for n in range(limit)]
