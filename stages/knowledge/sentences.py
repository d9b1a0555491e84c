"""Where sentences end, in any language that ends them with a full stop or one of its kin."""

from __future__ import annotations

import re
from itertools import pairwise

# After two letters or a non-letter and a full stop, before anything but a small letter: `J. Verne` stays whole
SENTENCE_GAP = re.compile(
    r"(?:(?<=[^\W\d][^\W\d][.!?…])|(?<=[\d\W][.!?…。！？]))[\"'»”’)\]]*(?P<gap>\s+)(?=[^\sa-zа-яё])"
)


def sentence_ends(text: str) -> list[int]:
    """Where each sentence ends, its closing quotes included; the last is the text's end."""
    text = text.rstrip()
    return [*(match.start("gap") for match in SENTENCE_GAP.finditer(text)), len(text)] if text else []


def sentences(text: str) -> list[str]:
    """Sentences without the white space between them. An initial such as `J. Verne` ends none."""
    ends = sentence_ends(text)
    return [text[begin:end].strip() for begin, end in pairwise([0, *ends])]
