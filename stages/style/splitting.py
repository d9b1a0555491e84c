"""Which passages are trained on and which are held out: whole files; of a single file, its last part.

    held_out([File("a.txt", [700, 900]), File("b.txt", [650])], share=0.1, seed=13)    # {"b.txt": 0}

The answer is, for each file with held-out passages, the number of its first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.core.errors import DataError
from stages.core.seeding import derived_random
from stages.knowledge.shingles import Shingler, quoting_pairs


def held_out(sizes: Mapping[str, Sequence[int]], share: float, seed: int) -> dict[str, int]:
    """sizes: file -> tokens of its passages, in order. File -> the number of its first held-out passage.

    Of several files whole ones, as near to `share` of all tokens as a seeded draw comes; at least one on either side.
    Raises DataError where there are too few passages for two sides.
    """
    files = [name for name in sizes if sizes[name]]
    total = sum(map(sum, sizes.values()))
    if len(files) == 1:
        return {files[0]: _last_part(files[0], sizes[files[0]], share * total)}
    if not files:
        raise DataError("no passage to split; add samples, or lower min_tokens")
    order = sorted(files)
    derived_random(seed, "held-out files").shuffle(order)
    chosen: list[str] = []
    taken = 0
    for name in order:
        size = sum(sizes[name])
        if abs(taken + size - share * total) < abs(taken - share * total) and len(chosen) < len(files) - 1:
            chosen.append(name)
            taken += size
    return dict.fromkeys(chosen or [min(order, key=lambda name: sum(sizes[name]))], 0)


def _last_part(name: str, sizes: Sequence[int], wanted: float) -> int:
    """The first passage of the last part. One passage before it will be dropped, and one must be left before that."""
    if len(sizes) < 3:
        raise DataError(f"{name}: {len(sizes)} passages of one file cannot be split; add samples, or lower min_tokens")
    return min(range(2, len(sizes)), key=lambda first: (abs(sum(sizes[first:]) - wanted), first))


def repeated_in_training(held_out: Sequence[str], training: Sequence[str], max_share: float) -> dict[int, int]:
    """Number of a held-out passage -> number of the training passage that holds more than max_share of its trigrams."""
    shingler = Shingler()
    training_sets, held_out_sets = [shingler(text) for text in training], [shingler(text) for text in held_out]
    found: dict[int, int] = {}
    for number, text, share in quoting_pairs(held_out_sets, training_sets, max_share):
        if share > max_share:
            found.setdefault(number, text)
    return found
