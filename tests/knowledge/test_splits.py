from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.records import QA, SPLITS
from stages.knowledge.splits import group_key, group_rows, split_groups, splits_hash

SHARES = {"train": 0.65, "validation": 0.1, "test": 0.25}


def row(number: int, answer: str, source: str = "", cluster: str = "", kind: str = "qa") -> QA:
    return QA(f"{kind}-{number:04d}", kind, f"question {number}", answer, source, cluster=cluster)


ANSWERS = st.text("ab ", min_size=1, max_size=4)
ROW = st.builds(row, st.integers(0, 999), ANSWERS, st.sampled_from(["", "s", "t", "u"]))
ROWS = st.lists(ROW, max_size=20, unique_by=lambda r: r.id)


def split(rows: list[QA], pinned: set[str] | None = None, seed: int = 1) -> dict[str, str]:
    return split_groups(group_rows(rows, 0.8), pinned or set(), SHARES, seed)


def test_groups_join_answers_clusters_sources_and_quotes() -> None:
    long = "the founder of the mill Bako is Lona Tir who came by ship"
    rows = [
        row(1, "Yes."),
        row(2, "yes!"),  # the same answer
        row(3, "No.", cluster="qa-0003"),
        row(4, "Never.", cluster="qa-0003"),  # the same cluster
        row(5, "One.", source="Bako"),
        row(6, "Two.", source="Bako"),  # the same source
        row(7, "Three.", source="Bako", kind="boundary"),  # a source of another kind is another source
        row(8, long),
        row(9, f"I have told you that {long}, and it is long ago, and nobody remembers it."),  # quotes 8
        replace(row(10, "Ask elsewhere."), question=f"They say {long}. True?"),  # its question quotes 8
    ]
    groups = {first: [r.id[-4:] for r in members] for first, members in group_rows(rows, 0.8).items()}
    assert groups == {
        "qa-0001": ["0001", "0002"],
        "qa-0003": ["0003", "0004"],
        "qa-0005": ["0005", "0006"],
        "boundary-0007": ["0007"],
        "qa-0008": ["0008", "0009", "0010"],
    }


def test_golden_split() -> None:
    rows = [row(n, f"answer number {n} of many", source=f"s{n % 50}") for n in range(200)]
    splits = split(rows, seed=13)
    assert Counter(splits.values()) == {"train": 128, "test": 52, "validation": 20}
    assert splits_hash(splits) == splits_hash(dict(reversed(splits.items())))
    assert splits != split(rows, seed=14)


def test_shares_are_met_for_each_kind() -> None:
    rows = [row(n, f"answer {n}", source=f"s{n % 80}") for n in range(480)]
    rows += [row(n, f"reply {n}", kind="boundary") for n in range(100)]
    splits = split(rows, {"qa-0003", "qa-0004"})
    for kind, num_rows, largest_group in (("qa", 480, 6), ("boundary", 100, 1)):
        counts = Counter(split for row_id, split in splits.items() if row_id.startswith(kind))
        assert all(abs(counts[name] - SHARES[name] * num_rows) <= largest_group for name in SPLITS)


def test_pinned_rows_take_their_group_to_train() -> None:
    rows = [row(n, f"answer {n}", source=f"s{n % 40}") for n in range(80)]
    elsewhere = next(r for r in rows if split(rows)[r.id] == "test")
    splits = split(rows, {elsewhere.id})
    assert {splits[r.id] for r in rows if r.source_document == elsewhere.source_document} == {"train"}


def test_group_key_survives_more_rows_of_the_source() -> None:
    one = row(5, "b", source="Bako")
    assert group_key([one]) == group_key([row(1, "a", source="Bako"), one]) == "source qa Bako"


@given(ROWS, st.integers(0, 3))
def test_groups_never_cross(rows: list[QA], seed: int) -> None:
    splits = split(rows, seed=seed)
    assert sorted(splits) == sorted(r.id for r in rows)
    for one in rows:
        for other in rows:
            same = one.source_document and one.source_document == other.source_document
            if same or one.answer.split() == other.answer.split():
                assert splits[one.id] == splits[other.id]


def moved(before: dict[str, str], after: dict[str, str], rows: list[QA]) -> set[str]:
    return {r.source_document for r in rows if before[r.id] != after[r.id]}


def test_new_rows_move_only_the_groups_at_the_cuts() -> None:
    rows = [row(n, f"answer {n}", source=f"s{n % 80}") for n in range(480)]
    before = split(rows)
    counts = []
    for new in range(60):
        more = [row(1000 + n, f"new answer {n}", source=f"new {new}") for n in range(6)]
        counts.append(len(moved(before, split(more + rows), rows)))
    assert max(counts) <= 2  # one for each cut
    assert sum(counts) < 60  # less than one on average


@given(ROWS, st.integers(0, 3))
def test_the_order_of_rows_does_not_matter(rows: list[QA], seed: int) -> None:
    assert split(rows[::-1], seed=seed) == split(rows, seed=seed)
