from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.regression.shortening import MIN_CHARS, cut, num_shortened, shorten_evenly

SHORT, LONG, LONGER = "few words", "word " * 20 + "end", "word " * 60 + "end"


def within(limit: int):  # type: ignore[no-untyped-def]
    return lambda texts: sum(map(len, texts)) <= limit


def test_what_fits_is_left_alone() -> None:
    texts = [SHORT, LONG]
    assert shorten_evenly(texts, within(len(SHORT) + len(LONG)), "here") == texts


def test_the_longest_goes_first_and_the_others_stay_whole() -> None:
    short, long, longer = shorten_evenly([SHORT, LONG, LONGER], within(250), "here")
    assert (short, long) == (SHORT, LONG)
    assert longer == ("word " * 27).strip()  # 250 less the other two are 138 characters; at a word end 134
    assert num_shortened([SHORT, LONG, LONGER], [short, long, longer]) == 1


def test_all_that_are_cut_are_cut_to_one_length() -> None:
    first, second = shorten_evenly([LONG, LONGER], within(120), "here")
    assert first == second == ("word " * 12).strip()


def test_below_the_minimum_it_is_an_error_with_the_way_out() -> None:
    kept = shorten_evenly([LONG, LONGER], within(2 * MIN_CHARS), "here")
    assert [len(text) for text in kept] == [24, 24]
    with pytest.raises(DataError, match="here: too long even with every text cut to 24 characters; allow more"):
        shorten_evenly([LONG, LONGER], within(2 * MIN_CHARS - 1), "here")
    with pytest.raises(DataError, match="here: too long"):
        shorten_evenly([SHORT], lambda texts: False, "here")


def test_a_text_without_blanks_is_cut_through() -> None:
    assert cut("长" * 100, 40) == "长" * 40


@given(st.text(alphabet=" abcä", max_size=300), st.integers(MIN_CHARS, 300))
def test_a_cut_text_is_a_beginning_of_it(text: str, size: int) -> None:
    text = " ".join(text.split())
    kept = cut(text, size)
    assert text.startswith(kept)
    assert len(kept) <= size
    assert kept == text or (len(kept) >= MIN_CHARS - 1 and len(text) > size)


@given(st.lists(st.text(alphabet="ab ", max_size=120), min_size=1, max_size=6), st.integers(0, 500))
def test_the_result_fits_or_there_is_none(texts: list[str], limit: int) -> None:
    try:
        kept = shorten_evenly(texts, within(limit), "here")
    except DataError:
        assert sum(len(cut(text, MIN_CHARS)) for text in texts) > limit
    else:
        assert sum(map(len, kept)) <= limit
