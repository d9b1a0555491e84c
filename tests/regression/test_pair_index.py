from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.regression.pair_index import PairIndex, known_neighbours, read_pairs, read_vectors
from stages.regression.pair_prompts import Neighbour
from stages.regression.pairs import Pair


def pair(identifier: str, a: str = "", b: str = "", value: float = 0.5) -> Pair:
    return Pair(identifier, f"{identifier}-a", f"{identifier}-b", a or f"{identifier} one", b or "other", value)


def line(*places: float) -> Any:
    return np.array([[place, 0.0] for place in places], dtype=np.float32)


STRANGER = ("", "")


def test_nearest_first_with_euclidean_distances() -> None:
    index = PairIndex([pair("p1"), pair("p2"), pair("p3")], line(0, 3, 10))
    assert index.search(line(2, 9), 2, [STRANGER, STRANGER]) == [[(1, 1.0), (0, 2.0)], [(2, 1.0), (1, 6.0)]]


def test_neither_the_pair_itself_nor_its_mirror_image() -> None:
    one, mirror, same, far = pair("p1", "x", "y"), pair("p2", "Y ", "x"), pair("p3", "x", "y"), pair("p4", "x", "z")
    index = PairIndex([one, mirror, same, far], line(0, 0, 0.1, 9))
    assert index.search(line(0), 3, [one.key]) == [[(3, 9.0)]]
    assert index.search(line(0), 1, [far.key]) == [[(0, 0.0)]]


def test_ties_go_to_the_smaller_id() -> None:
    names = [f"p{n:02}" for n in range(40)]
    index = PairIndex([pair(name) for name in reversed(names)], line(*[1.0] * 40))
    (found,) = index.search(line(0), 3, [STRANGER])
    assert [index.pairs[row].id for row, _ in found] == ["p00", "p01", "p02"]


def test_fewer_than_wanted_where_there_are_no_more() -> None:
    index = PairIndex([pair("p1"), pair("p2")], line(0, 1))
    assert [len(found) for found in index.search(line(0, 0), 5, [STRANGER, index.pairs[0].key])] == [2, 1]
    alone = PairIndex([pair("p1")], line(0))
    assert alone.search(line(0), 5, [alone.pairs[0].key]) == [[]]


def test_a_small_difference_of_long_vectors_is_not_rounded_away() -> None:
    """FAISS computes |x|^2 + |y|^2 - 2xy in float32 for batches: near pairs of long vectors change places."""
    draw = np.random.default_rng(0)
    middle = draw.normal(size=64) * 100
    vectors = (middle + draw.normal(size=(300, 64)) * 1e-3).astype(np.float32)
    index = PairIndex([pair(f"p{n:03}") for n in range(300)], vectors)
    found = index.search(vectors, 4, [STRANGER] * 300)
    exact = np.linalg.norm(vectors.astype(np.float64)[:, None] - vectors.astype(np.float64)[None], axis=2)
    expected = np.argsort(exact.round(6), axis=1, kind="stable")[:, :4]
    assert [[row for row, _ in one] for one in found] == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(1, 6),
)
def test_equals_brute_force(rows: list[tuple[str, str, int]], top_k: int) -> None:
    pairs = [pair(f"p{n:02}", a, b) for n, (a, b, _) in enumerate(rows)]
    places = [place for *_, place in rows]
    found = PairIndex(pairs, line(*places)).search(line(*places), top_k, [p.key for p in pairs])
    for n, one in enumerate(found):
        others = [m for m in range(len(rows)) if pairs[m].key != pairs[n].key]
        expected = sorted(others, key=lambda m: (abs(places[m] - places[n]), pairs[m].id))[:top_k]
        assert [row for row, _ in one] == expected


# ---- on disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of two training pairs and one test pair."""
    (tmp_path / "by_pair" / "neighbours").mkdir(parents=True)
    np.save(tmp_path / "by_pair" / "train.npy", line(0, 3))
    rows = [{"id": "p1", "neighbours": []}, {"id": "p2", "neighbours": []}]
    write_jsonl(tmp_path / "by_pair" / "neighbours" / "train.jsonl", rows)
    near = [{"id": "p2", "distance": 0.5}, {"id": "p1", "distance": 1.5}]
    write_jsonl(tmp_path / "by_pair" / "neighbours" / "test.jsonl", [{"id": "t1", "neighbours": near}])
    (tmp_path / "manifest.json").write_text(json.dumps({"embedder_fingerprint": "print", "top_k": 2}))
    return tmp_path


TRAIN = [pair("p1", value=0.1), pair("p2", value=0.2)]


def test_stored_neighbours_come_with_texts_and_values(folder: Path) -> None:
    found = known_neighbours(folder, "by_pair", "test", {p.id: p for p in TRAIN}, 2)
    assert found == {"t1": [Neighbour("p2 one", "other", 0.2, 0.5, "p2"), Neighbour("p1 one", "other", 0.1, 1.5, "p1")]}
    assert [n.id for n in known_neighbours(folder, "by_pair", "test", {p.id: p for p in TRAIN}, 1)["t1"]] == ["p2"]


def test_more_neighbours_than_are_stored_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"3 neighbours wanted, 2 stored; raise build_pair_index.top_k"):
        known_neighbours(folder, "by_pair", "test", {}, 3)


def test_neighbours_that_are_not_there_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(DataError, match=r"built from other pairs \('p1' is none"):
        known_neighbours(folder, "by_pair", "test", {"p2": TRAIN[1]}, 2)


def test_a_loaded_index_has_its_pairs_in_the_order_of_the_rows(folder: Path) -> None:
    index = PairIndex.load(folder, "by_pair", [pair("p3"), *reversed(TRAIN)], "print")
    assert index.ids == ["p1", "p2"]
    assert index.vectors.tolist() == line(0, 3).tolist()


def test_an_index_of_another_embedder_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"another embedder \(print\) than the one loaded \(other\)"):
        PairIndex.load(folder, "by_pair", TRAIN, "other")


def test_an_index_of_other_pairs_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="by_pair: built from other pairs"):
        PairIndex.load(folder, "by_pair", TRAIN[:1], "print")


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"by_contract/train\.npy: no such vectors"):
        read_vectors(folder, "by_contract", "train")
    with pytest.raises(DataError, match="nowhere: no index of pairs"):
        known_neighbours(tmp_path / "nowhere", "by_pair", "test", {}, 1)


def test_pairs_are_read_up_to_a_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "by_pair" / "train.jsonl", [p.to_row() for p in TRAIN])
    assert read_pairs(tmp_path, "by_pair", "train") == TRAIN
    assert read_pairs(tmp_path, "by_pair", "train", 1) == TRAIN[:1]
