"""Perplexity against its definition, on a model whose probabilities are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.generation.perplexity import (
    TextScore,
    bits_per_byte,
    perplexity,
    perplexity_of,
    unrelated_texts,
    windows_of,
)

torch = pytest.importorskip("torch")


class Bytes:
    """A tokenizer with one token a byte; 0 begins a text."""

    bos_token_id: int | None = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


class Echo:
    """Gives the token before `weight` times the chance of any other."""

    device = "cpu"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        logits = torch.nn.functional.one_hot(input_ids, 256) * math.log(self.weight)
        return SimpleNamespace(logits=logits.float())


def test_every_token_counts_once_with_its_probability() -> None:
    scores = perplexity(Echo(3.0), Bytes(), ["aab", "b"], max_length=8, batch_size=2)
    repeated, other = -math.log(3 / 258), -math.log(1 / 258)
    assert scores[0].nll == pytest.approx(repeated + 2 * other, rel=1e-5)
    assert scores[1].nll == pytest.approx(other, rel=1e-5)
    assert [(s.num_tokens, s.num_bytes) for s in scores] == [(3, 3), (1, 1)]


@pytest.mark.parametrize(("max_length", "batch_size"), [(2, 1), (3, 4), (5, 2), (64, 64)])
def test_windows_and_batches_change_nothing_where_one_token_of_context_is_enough(
    max_length: int, batch_size: int
) -> None:
    texts = ["mississippi", "aa", "Straße", "xyzzy" * 5]
    whole = perplexity(Echo(5.0), Bytes(), texts, max_length=1000, batch_size=1)
    cut = perplexity(Echo(5.0), Bytes(), texts, max_length=max_length, batch_size=batch_size)
    assert [s.nll for s in cut] == pytest.approx([s.nll for s in whole], rel=1e-5)
    assert [s.num_tokens for s in cut] == [s.num_tokens for s in whole]


def test_a_text_counts_its_bytes_not_its_letters() -> None:
    assert perplexity(Echo(2.0), Bytes(), ["Straße"], 8, 1)[0].num_bytes == 7


def test_without_a_begin_token_the_first_token_is_not_predicted() -> None:
    tokenizer = Bytes()
    tokenizer.bos_token_id = None
    assert [s.num_tokens for s in perplexity(Echo(2.0), tokenizer, ["abc", "a", ""], 8, 2)] == [2, 0, 0]


@given(st.integers(0, 60), st.integers(2, 20))
def test_windows_predict_every_token_but_the_first_once(num_ids: int, max_length: int) -> None:
    windows = windows_of(list(range(num_ids)), max_length)
    assert [i for window in windows for i in window[1:]] == list(range(1, num_ids))
    assert all(2 <= len(window) <= max_length for window in windows)


def test_figures_over_several_texts() -> None:
    scores = [TextScore(math.log(4) * 3, 3, 4), TextScore(math.log(4), 1, 4)]
    assert perplexity_of(scores) == pytest.approx(4)
    assert bits_per_byte(scores) == pytest.approx(1)


def test_unrelated_text_is_fixed_prose_of_the_size_asked_for() -> None:
    texts = unrelated_texts(5000)
    assert texts == unrelated_texts(5000)
    assert sum(map(len, texts)) == 5000 and min(map(len, texts)) >= 2
