"""Connected text for continued pre-training, as rows of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.training.objective import TokenRow


def packed_rows(tokenizer: Any, texts: Sequence[str], max_length: int, name: str) -> list[TokenRow]:
    """All texts as one stream of tokens, with the tokenizer's begin and end tokens around each, cut into rows.

    The last, shorter row is kept unless it is a single token, on which no loss could fall.
    """
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    stream: list[int] = []
    for text in texts:
        stream += [] if begin is None else [begin]
        stream += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        stream += [] if end is None else [end]
    windows = [stream[k : k + max_length] for k in range(0, len(stream), max_length)]
    return [TokenRow(f"{name}-{n}", window, len(window)) for n, window in enumerate(windows) if len(window) > 1]
