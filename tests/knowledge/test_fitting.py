from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.fitting import fit_documents


def count(documents: list[str]) -> int:
    return 10 + sum(len(text) for text in documents)


def test_what_fits_stays() -> None:
    assert fit_documents(["One. Two."], [0], count, 19) == ["One. Two."]


def test_least_needed_is_shortened_first_then_dropped() -> None:
    documents = ["One. Two.", "Three. Four.", "Five. Six."]
    assert fit_documents(documents, [0, 2, 1], count, 10 + 9 + 10 + 6) == ["One. Two.", "Three.", "Five. Six."]
    assert fit_documents(documents, [0, 2, 1], count, 10 + 9 + 10) == ["One. Two.", "", "Five. Six."]
    assert fit_documents(documents, [0, 2, 1], count, 10 + 9 + 5) == ["One. Two.", "", "Five."]
    assert fit_documents(documents, [0, 2, 1], count, 10) == ["", "", ""]


def test_too_long_without_documents() -> None:
    assert fit_documents(["One."], [0], count, 9) is None
    assert fit_documents([], [], count, 9) is None


@given(st.lists(st.text(alphabet="a. ", min_size=1, max_size=12), max_size=4), st.integers(0, 60))
def test_result_fits_and_holds_beginnings_only(documents: list[str], max_length: int) -> None:
    kept = fit_documents(documents, list(range(len(documents))), count, max_length)
    if kept is None:
        assert max_length < 10
    else:
        assert count([text for text in kept if text]) <= max_length
        assert all(whole.startswith(part) for whole, part in zip(documents, kept, strict=True))
