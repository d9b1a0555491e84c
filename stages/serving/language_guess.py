"""In which language is the material of a new domain?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from stages.documents.limits import Limits
from stages.documents.parsing import parse_files
from stages.knowledge.shingles import words
from stages.synthetic.languages import LANGUAGES, script_of

ENOUGH = 2  # documents
LIMITS = Limits(cpu_s=5, wall_s=15, max_chars=1_000_000)


def language_of(text: str) -> str:
    """The likeliest language: of the script of most letters, the one with most stop words. "" where nothing tells."""
    scripts = Counter(script_of(letter) for letter in text[:20_000] if letter.isalpha())
    if not scripts:
        return ""
    script = scripts.most_common(1)[0][0]
    found = Counter(words(text[:200_000]))
    counts = {
        code: sum(found[word] for word in language.stop_words)
        for code, language in LANGUAGES.items()
        if script in language.scripts
    }
    return max(counts, key=lambda code: counts[code], default="")


def parsed_text(paths: Sequence[Path]) -> str:
    """The beginnings of the first documents that can be read, under limits."""
    texts = (outcome.document.text[:20_000] for outcome in parse_files(paths, LIMITS) if outcome.document)
    return "\n".join(islice(texts, ENOUGH)) if paths else ""
