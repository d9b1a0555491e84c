r"""What an author wrote to himself, taken out of his text: comments, TODO lines, notes in brackets, footnotes.

Notes({"todo_line": "^TODO.*$"}).removed("It was dark.\nTODO: darker\nHe lit a match.")
# ("It was dark.\nHe lit a match.", Counter({"todo_line": 1}))
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping


class Notes:
    """Patterns by name, tried in order. Raises ValueError naming a pattern that is none, or that matches no text."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = {}
        for name, pattern in patterns.items():
            try:
                self._patterns[name] = re.compile(pattern, re.MULTILINE)
            except re.error as error:
                raise ValueError(f"notes.{name}: no regular expression: {error}") from error
            if self._patterns[name].match(""):
                raise ValueError(f"notes.{name}: it matches the empty text, so it would match everywhere")

    def removed(self, text: str) -> tuple[str, Counter[str]]:
        """The text without notes, and how many of each there were."""
        counts: Counter[str] = Counter()
        for name, pattern in self._patterns.items():
            kept, at = [], 0
            for match in pattern.finditer(text):
                begin, end = _with_its_space(match)
                kept.append(text[at : max(at, begin)])
                at = end
                counts[name] += 1
            text = "".join([*kept, text[at:]])
        return text, counts


def _with_its_space(match: re.Match[str]) -> tuple[int, int]:
    """A note that fills its lines goes with the line feed, or it would end a paragraph; another with a blank before."""
    text, begin, end = match.string, match.start(), match.end()
    if text[begin - 1 : begin] in ("", "\n") and text[end : end + 1] == "\n":
        return begin, end + 1
    return begin - (text[begin - 1 : begin] == " "), end
