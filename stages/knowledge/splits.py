"""Train, validation and test: whole groups, in shares that are met, in an order that adding rows does not disturb.

Rows that share an answer, a near-duplicate cluster or a source, or of which one quotes the other, form a group.
Groups stand in the order of a hash of the seed and their key, and the order is cut where the shares say. New rows
move no old group past another; only the cuts shift, by no more rows than are new, and with them the groups that
lie right there. (Drawing each group on its own would move none, but of 80 groups a share of 25 % became 37 %.)
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from stages.core.fingerprint import fingerprint
from stages.knowledge.leaks import find_quotes
from stages.knowledge.near_duplicates import Groups
from stages.knowledge.records import QA
from stages.knowledge.shingles import words


def group_rows(rows: Sequence[QA], threshold: float) -> dict[str, list[QA]]:
    """Group id (the id of its first row) -> its rows. threshold: of quoting, see `leaks`."""
    groups = Groups(row.id for row in rows)
    firsts: dict[tuple[str, ...], str] = {}
    for row in rows:
        for key in _keys(row):
            groups.join(firsts.setdefault(key, row.id), row.id)
    answers = [row.answer for row in rows]
    for quote in find_quotes(answers, answers + [row.question for row in rows], threshold):
        groups.join(rows[quote.answer].id, rows[quote.text % len(rows)].id)
    by_id = {row.id: row for row in rows}
    return {first: [by_id[member] for member in members] for first, members in groups.members().items()}


def split_groups(
    groups: Mapping[str, Sequence[QA]], pinned: Collection[str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Row id -> split. Groups with a row in `pinned` are trained on; shares sum to 1 and hold for each kind."""
    splits: dict[str, str] = {}
    free: dict[str, list[Sequence[QA]]] = defaultdict(list)
    totals: Counter[str] = Counter()
    for members in groups.values():
        totals[members[0].kind] += len(members)
        if any(row.id in pinned for row in members):
            splits.update((row.id, "train") for row in members)
        else:
            free[members[0].kind].append(members)
    for kind, candidates in free.items():
        position = 0
        for members in sorted(candidates, key=lambda m: _place(group_key(m), seed)):
            split = _split_at((position + len(members) / 2) / totals[kind], shares)
            splits.update((row.id, split) for row in members)
            position += len(members)
    return dict(sorted(splits.items()))


def group_key(members: Sequence[QA]) -> str:
    """What a group is known by: the smallest name of its sources, or hash of its answers where it has no source."""
    sources = [f"source {row.kind} {row.source_document}" for row in members if row.source_document]
    return min(sources or [f"answer {_answer_hash(row)}" for row in members])


def splits_hash(splits: Mapping[str, str]) -> str:
    """Hex SHA-256 of which row is in which split."""
    return fingerprint(dict(splits))


def _place(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/split/{key}".encode()).hexdigest()


def _split_at(point: float, shares: Mapping[str, float]) -> str:
    """Evaluation first: pinned rows are part of what is trained on."""
    for name in ("validation", "test"):
        if point < shares[name]:
            return name
        point -= shares[name]
    return "train"


def _keys(row: QA) -> list[tuple[str, ...]]:
    keys: list[tuple[str, ...]] = [("answer", _answer_hash(row)), ("cluster", row.cluster or row.id)]
    return [*keys, ("source", row.kind, row.source_document)] if row.source_document else keys


def _answer_hash(row: QA) -> str:
    return hashlib.sha256(" ".join(words(row.answer)).encode()).hexdigest()
