"""Which pairs are usable, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.core.ledger import Ledger
from stages.regression.pairs import Pair, admit, flaw, text_key, text_pair
from stages.regression.task import RegressionTask


def pair(a: str, b: str, value: float, origin: str = "file:1") -> Pair:
    return text_pair({"a": a, "b": b}, value, origin)


def admitted(task: RegressionTask, pairs: list[Pair], policy: str = "reject") -> tuple[list[Pair], dict[str, Any]]:
    ledger = Ledger("test")
    ledger.read(len(pairs))
    kept = admit(pairs, task, ledger, policy)
    ledger.check(len(kept)) if kept else None
    return kept, ledger.metrics()["rejected"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"value": 1.0}, ""),
        ({"a": " \n"}, "empty_text"),
        ({"b": ""}, "empty_text"),
        ({"b_id": "1"}, "pair_with_itself"),
        ({"b": "ONE "}, "pair_with_itself"),
        ({"value": float("nan")}, "not_a_number"),
        ({"value": 1.0001}, "out_of_range"),
        ({"value": float("-inf")}, "out_of_range"),
    ],
)
def test_flaws(task: RegressionTask, changes: dict[str, Any], reason: str) -> None:
    assert flaw(replace(Pair("1--2", "1", "2", "one", "two", 0.5), **changes), task) == reason


def test_duplicates_are_dropped_in_either_order(task: RegressionTask) -> None:
    kept, rejected = admitted(
        task, [pair("x", "y", 0.5), pair("Y", "x", 0.5), pair("x", "y ", 0.501), pair("x", "z", 0.5)]
    )
    assert [(p.a, p.b) for p in kept] == [
        (p.a, p.b) for p in sorted([pair("x", "y", 0.5), pair("x", "z", 0.5)], key=lambda p: p.id)
    ]
    assert rejected == {"duplicate": 2}


def test_different_values_of_a_pair_and_its_mirror_reject_all_of_them(task: RegressionTask) -> None:
    pairs = [pair("x", "y", 0.5), pair("y", "x", 0.4), pair("x", "y", 0.5), pair("x", "z", 0.1)]
    kept, rejected = admitted(task, pairs)
    assert [p.b for p in kept] == ["z"]
    assert rejected == {"conflicting_values": 3}
    kept, rejected = admitted(task, pairs, "first")
    assert {p.value for p in kept} == {0.5, 0.1}
    assert rejected == {"conflicting_values": 1, "duplicate": 1}


def test_the_same_ids_with_other_texts_are_named(task: RegressionTask) -> None:
    texts = [{"a": "x", "b": "y", "a_id": "1", "b_id": "2"}, {"a": "x", "b": "z", "a_id": "1", "b_id": "2"}]
    kept, rejected = admitted(task, [text_pair(t, 0.5, "f:1") for t in texts])
    assert [p.b for p in kept] == ["y"]
    assert rejected == {"repeated_id": 1}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc "), st.sampled_from("abc"), st.sampled_from([-2.0, 0.1, 0.2, float("nan")])),
        max_size=12,
    )
)
def test_read_is_kept_and_rejected(rows: list[tuple[str, str, float]]) -> None:
    from stages.regression.task import PairPrompt, SqlSource

    prompt = PairPrompt("s", "{neighbours}", "{a}{b}{value}", "{a}{b}")
    task = RegressionTask(
        name="t", raw="r", json_field="f", low=-1.0, high=1.0, decimals=2, tolerance=0.2, prompt=prompt, source="sql",
        sql=SqlSource(url="sqlite:///x"),
    )  # fmt: skip
    ledger = Ledger("test")
    ledger.read(len(rows))
    kept = admit([pair(*row) for row in rows], task, ledger, "reject")
    assert len(kept) == ledger.num_kept
    assert len({p.key for p in kept}) == len(kept)


def test_rows_go_and_come_back() -> None:
    one = replace(pair("x", "y", -0.25), true_value=-0.2, category="k")
    assert Pair.from_row(one.to_row()) == one
    with pytest.raises(DataError, match=r"unknown keys \['c'\]"):
        Pair.from_row({**one.to_row(), "c": 1})
    with pytest.raises(DataError, match="missing"):
        Pair.from_row({"id": "1"})


def test_text_keys_are_blind_to_case_and_space() -> None:
    assert text_key(" The  Mill\n") == text_key("the mill")
    assert text_key("the mill") != text_key("the mills")
