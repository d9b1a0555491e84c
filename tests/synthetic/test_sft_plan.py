from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.knowledge.records import Chunk
from stages.synthetic.plan import in_turns, plan


def chunks(*sizes: int) -> list[Chunk]:
    """Documents of so many chunks."""
    return [Chunk(f"{d}-{n}", "book", f"d{d}", "", n, "text") for d, size in enumerate(sizes) for n in range(size)]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    styles=st.integers(1, 4),
    per_chunk=st.integers(1, 3),
    limit=st.integers(1, 80),
    seed=st.integers(0, 3),
)
def test_any_limit_is_spread_evenly(sizes: list[int], styles: int, per_chunk: int, limit: int, seed: int) -> None:
    names = [f"s{n}" for n in range(styles)]
    tasks = plan(chunks(*sizes), names, per_chunk, limit, seed)
    total = sum(sizes) * styles * per_chunk
    assert sum(task.count for task in tasks) == min(limit, total)
    assert all(task.count <= per_chunk for task in tasks)
    of_chunks = Counter({chunk.id: 0 for chunk in chunks(*sizes)})
    for task in tasks:
        of_chunks[task.chunk.id] += task.count
    assert max(of_chunks.values()) - min(of_chunks.values()) <= 1
    of_styles = Counter(dict.fromkeys(names, 0))
    for task in tasks:
        of_styles[task.style] += task.count
    assert max(of_styles.values()) - min(of_styles.values()) <= len(of_chunks)
    assert tasks == plan(chunks(*sizes), names, per_chunk, limit, seed)


def test_documents_take_turns() -> None:
    order = in_turns(chunks(5, 2, 1), seed=1)
    assert {chunk.document for chunk in order[:3]} == {"d0", "d1", "d2"}
    assert {chunk.document for chunk in order[3:5]} == {"d0", "d1"}
    assert len({chunk.id for chunk in order}) == 8
    assert order != in_turns(chunks(5, 2, 1), seed=2)


def test_a_raised_limit_asks_for_more_of_the_same() -> None:
    few, many = (plan(chunks(4, 3), ["a", "b"], 1, limit, 5) for limit in (6, 11))
    assert [task for task in many if task in few] == few


def test_nothing_to_do() -> None:
    assert plan([], ["a"], 1, 0, 1) == []
    assert plan(chunks(3), [], 2, 0, 1) == []
