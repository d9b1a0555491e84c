from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.style.splitting import held_out, repeated_in_training


def test_whole_files_are_held_out() -> None:
    sizes = {f"{n}.txt": [600] * 5 for n in range(20)}
    found = held_out(sizes, 0.1, seed=13)
    assert len(found) == 2
    assert set(found.values()) == {0}
    assert found == held_out(dict(reversed(sizes.items())), 0.1, seed=13)
    assert found != held_out(sizes, 0.1, seed=14)


def test_of_a_single_file_the_last_part_is() -> None:
    assert held_out({"book.txt": [1000] * 20}, 0.1, seed=13) == {"book.txt": 18}


def test_of_two_files_the_smaller_one_is() -> None:
    assert held_out({"a": [900] * 9, "b": [900] * 2}, 0.1, seed=13) == {"b": 0}


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(1, 2000), min_size=1), min_size=2), st.integers())
def test_both_sides_have_a_file(sizes: dict[str, list[int]], seed: int) -> None:
    assert 0 < len(held_out(sizes, 0.1, seed)) < len(sizes)


@pytest.mark.parametrize("sizes", [{}, {"a": []}, {"a": [700, 700]}])
def test_too_little_to_split_is_an_error(sizes: dict[str, list[int]]) -> None:
    with pytest.raises(DataError, match="min_tokens"):
        held_out(sizes, 0.1, seed=13)


def test_a_held_out_passage_that_stands_in_training_is_found() -> None:
    old = "the quick brown fox jumps over the lazy dog"
    new = "an entirely different sentence about the sea and its many moods"
    assert repeated_in_training([new, f"{old} once more again"], [old, "nothing"], 0.2) == {1: 0}
    assert repeated_in_training([new], [old], 0.2) == {}
