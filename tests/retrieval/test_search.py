"""Search: the same hits from every store, and the hits of an exhaustive search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.core.schema import Retrieval
from stages.knowledge.records import IndexRecord
from stages.retrieval import search as search_module
from stages.retrieval.index import Index
from stages.retrieval.search import Hit, Searcher

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("qa", "book", "article", "interview")


def random_index(num_records: int, seed: int, dimension: int = 16, duplicates: bool = True) -> Index:
    """1 to 4 vectors a record, in clusters, some of them equal."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 5, size=num_records)
    centres = random.normal(size=(6, dimension))
    vectors = centres[random.integers(6, size=counts.sum())] + 0.4 * random.normal(size=(counts.sum(), dimension))
    if duplicates and len(vectors) > 3:
        vectors[random.integers(len(vectors), size=len(vectors) // 4)] = vectors[0]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    records = [
        IndexRecord(f"{KINDS[n % 4]}-{n:04}", KINDS[n % 4], "d", f"s{n // 8}", n, [f"question {n}"], f"text {n}")
        for n in range(num_records)
    ]
    entries = np.repeat(np.arange(num_records, dtype=np.int32), counts)
    return Index(records, vectors, entries, vectors[:0], {})


def exhaustive(
    index: Index, query: np.ndarray, kinds: Collection[str] | None, limit: float, excluded: Collection[str]
) -> list[tuple[float, str]]:
    """Every record that qualifies, nearest first: written to be obviously right."""
    found = []
    for record in index.records:
        if record.id in excluded or (kinds is not None and record.kind not in kinds):
            continue
        vectors = index.vectors_of(record.id).astype(np.float64)
        distance = max(0.0, min(round(1 - float(vector @ query.astype(np.float64)), 6) for vector in vectors))
        if distance <= limit:
            found.append((distance, record.id))
    return sorted(found)


def brief(hits: list[Hit]) -> list[tuple[float, str]]:
    return [(hit.distance, hit.record.id) for hit in hits]


def searcher(index: Index, store: str, cache: Path, **settings: object) -> Searcher:
    return Searcher(index, Retrieval(store=store, **settings), cache)


@pytest.mark.parametrize("store", ["chroma", "faiss"])
@pytest.mark.parametrize("kinds", [None, ["book", "article", "interview"], ["qa"]])
@pytest.mark.parametrize("limit", [None, 0.2])
def test_equals_exhaustive_search(
    store: str, kinds: list[str] | None, limit: float | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    index = random_index(300, seed=1)
    cache = tmp_path_factory.getbasetemp()  # one Chroma store for all cases
    queries = random_index(40, seed=2).vectors
    exclude = [{index.records[(7 * n + k) % 300].id for k in range(30)} for n in range(len(queries))]
    hits = searcher(index, store, cache).search(queries, [""] * len(queries), 5, kinds, limit, exclude)
    for query, excluded, found in zip(queries, exclude, hits, strict=True):
        assert brief(found) == exhaustive(index, query, kinds, np.inf if limit is None else limit, excluded)[:5]
        assert [hit.score for hit in found] == [1 - hit.distance for hit in found]


@settings(max_examples=60, deadline=None)
@given(
    num_records=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    top_k=st.integers(1, 8),
    kinds=st.none() | st.sets(st.sampled_from(KINDS)),
    limit=st.none() | st.floats(0, 1.5),
    excluded=st.sets(st.integers(0, 59)),
    first_fetch=st.integers(1, 4),
)
def test_folding_and_filters_lose_nothing(
    num_records: int,
    seed: int,
    top_k: int,
    kinds: set[str] | None,
    limit: float | None,
    excluded: set[int],
    first_fetch: int,
) -> None:
    index = random_index(num_records, seed, dimension=3)
    query = random_index(3, seed + 1, dimension=3).vectors[:1]
    ids = {index.records[n].id for n in excluded if n < num_records}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "FIRST_FETCH", first_fetch)  # small, so that it must ask again
        hits = searcher(index, "faiss", Path()).search(query, [""], top_k, kinds, limit, [ids | {"unknown"}])[0]
    expected = exhaustive(index, query[0], kinds, np.inf if limit is None else limit, ids)
    assert brief(hits) == expected[:top_k]


def test_the_store_is_asked_again_until_records_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record holds the 50 nearest vectors: the second record must be found behind them."""
    angles = np.concatenate([np.linspace(0, 0.1, 50), [0.5], np.full(200, 3.0)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    entries = np.repeat(np.arange(3, dtype=np.int32), [50, 1, 200])
    records = [IndexRecord(name, "book", "d", "s", n, ["q"], "t") for n, name in enumerate("abc")]
    found = searcher(Index(records, vectors, entries, vectors[:0], {}), "faiss", Path())
    hits = found.search(np.array([[1, 0]], dtype=np.float32), [""], 2)[0]
    assert [hit.record.id for hit in hits] == ["a", "b"]
    assert hits[1].distance == pytest.approx(1 - np.cos(0.5), abs=1e-6)


def test_ties_go_by_id() -> None:
    vectors = np.tile(np.array([[1, 0]], dtype=np.float32), (40, 1))
    records = [IndexRecord(f"r{39 - n:02}", "book", "d", "s", n, ["q"], "t") for n in range(40)]
    index = Index(records, vectors, np.arange(40, dtype=np.int32), vectors[:0], {})
    hits = searcher(index, "faiss", Path()).search(vectors[:1], [""], 3)[0]
    assert brief(hits) == [(0.0, "r00"), (0.0, "r01"), (0.0, "r02")]


def test_siblings_stay_in_their_section() -> None:
    records = [IndexRecord(f"b{n}", "book", "d", "one" if n < 3 else "two", n, ["q"], "t") for n in (0, 1, 2, 3, 4, 6)]
    records.append(IndexRecord("a2", "article", "d", "one", 2, ["q"], "t"))
    vectors = np.eye(7, dtype=np.float32)
    found = searcher(Index(records, vectors, np.arange(7, dtype=np.int32), vectors[:0], {}), "faiss", Path())

    def ids(record: IndexRecord, before: int, after: int) -> list[str]:
        return [sibling.id for sibling in found.siblings(record, before, after)]

    assert ids(records[1], 1, 1) == ["b0", "b1", "b2"]
    assert ids(records[2], 1, 2) == ["b1", "b2"]  # b3 begins another section
    assert ids(records[4], 0, 2) == ["b4", "b6"]  # number 5 is not in the index
    assert ids(records[0], 0, 0) == ["b0"]


def test_words_find_what_vectors_do_not(tmp_path: Path) -> None:
    """Full text lifts the record with the rare word; a maximal distance still holds for it."""
    index = random_index(300, seed=3, duplicates=False)
    query, text = index.vectors[:1], ["What of the Übermühle?"]
    far = exhaustive(index, query[0], None, np.inf, ())[-1][1]
    number = index.number(far)
    records = [*index.records]
    records[number] = IndexRecord(far, records[number].kind, "d", "s", number, ["q"], "The UBERMUHLE stands.")
    index = Index(records, index.vectors, index.entries, index.queries, {})
    found = searcher(index, "faiss", tmp_path, fulltext=True)
    nearest = exhaustive(index, query[0], None, np.inf, ())
    hits = found.search(query, text, 3)[0]
    assert {hits[0].record.id, hits[1].record.id} == {nearest[0][1], far}  # both first in one ranking
    assert [hit.score for hit in hits] == [1 / 61, 1 / 61, 1 / 62]
    assert next(hit for hit in hits if hit.record.id == far).distance == nearest[-1][0]
    limited = found.search(query, text, 300, max_distance=nearest[-1][0] - 1e-3)[0]
    assert far not in {hit.record.id for hit in limited}
    assert far not in {hit.record.id for hit in found.search(query, text, 3, exclude=[{far}])[0]}
    others = [kind for kind in KINDS if kind != records[number].kind]
    assert far not in {hit.record.id for hit in found.search(query, text, 3, kinds=others)[0]}


def test_wrong_arguments_are_refused() -> None:
    found = searcher(random_index(5, seed=0), "faiss", Path())
    with pytest.raises(ValueError, match=r"expected shape \(1, 16\), got \(1, 4\)"):
        found.search(np.ones((1, 4), dtype=np.float32), [""], 1)
    with pytest.raises(ValueError, match="1 sets for 2 queries"):
        found.search(np.ones((2, 16), dtype=np.float32), ["", ""], 1, exclude=[set()])
    with pytest.raises(ValueError, match="top_k"):
        found.search(np.ones((1, 16), dtype=np.float32), [""], 0)
    assert found.search(np.ones((0, 16), dtype=np.float32), [], 1) == []


def test_chroma_is_built_once_and_noticed_when_broken(tmp_path: Path) -> None:
    index = random_index(50, seed=4)
    searcher(index, "chroma", tmp_path)
    (store,) = [path for path in (tmp_path / "chroma").iterdir() if path.is_dir()]
    built = (store / "chroma.sqlite3").stat().st_ino
    searcher(index, "chroma", tmp_path)
    assert (store / "chroma.sqlite3").stat().st_ino == built
    searcher(random_index(50, seed=5), "chroma", tmp_path)  # another index: another store
    assert len([path for path in (tmp_path / "chroma").iterdir() if path.is_dir()]) == 2

    broken = random_index(50, seed=6)
    (tmp_path / "chroma" / broken.hash[:32]).mkdir()
    with pytest.raises(DataError, match="only a cache: delete the folder"):
        searcher(broken, "chroma", tmp_path)


TWO_AT_ONCE = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_search", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
index = tests.random_index(600, seed=7)
hits = tests.searcher(index, "chroma", Path(sys.argv[2])).search(index.vectors[:20], [""] * 20, 2)
print([tests.brief(found) for found in hits])
"""


def test_two_processes_may_want_the_same_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO_AT_ONCE, __file__, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != b""
    stores = [path for path in (tmp_path / "chroma").iterdir() if path.is_dir()]
    assert len(stores) == 1  # and no half-built one beside it


def test_every_store_is_a_choice_of_the_configuration() -> None:
    for store in search_module.STORES:
        conf = yaml.safe_load((ROOT / f"conf/retrieval/{store}.yaml").read_text())
        assert Retrieval(**conf).store == store
