"""A training example of a writer's style, as it stands in data/<domain>/style/<writer>/{train,validation}.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import iterate_lines

ROLES = ["system", "user", "assistant"]


@dataclass(frozen=True)
class StyleExample:
    """passage: what the assistant has to write, as the author wrote it. num_tokens: its own, without the prompt's."""

    id: str
    system: str
    user: str
    passage: str
    source: str
    num_tokens: int

    def to_row(self) -> dict[str, Any]:
        """A line in the format `chat`."""
        texts = (self.system, self.user, self.passage)
        messages = [{"role": role, "content": text} for role, text in zip(ROLES, texts, strict=True)]
        return {"id": self.id, "messages": messages, "source": self.source, "num_tokens": self.num_tokens}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StyleExample:
        """Raises KeyError or ValueError for a line that to_row did not write."""
        if [message["role"] for message in row["messages"]] != ROLES:
            raise ValueError(f"expected messages of {', '.join(ROLES)}")
        system, user, passage = (message["content"] for message in row["messages"])
        return cls(row["id"], system, user, passage, row["source"], row["num_tokens"])


def read_examples(path: Path) -> list[StyleExample]:
    """Raises DataError with file:line."""
    examples = []
    for line in iterate_lines(path):
        try:
            if line.error:
                raise ValueError(line.error)
            examples.append(StyleExample.from_row(line.value))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path.parent}/{line.origin}: no example of prepare_style: {error}") from error
    return examples
