from __future__ import annotations

from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.core.workspace import ROOT
from stages.style.notes import Notes

SHIPPED = Notes(yaml.safe_load((ROOT / "conf/prepare_style/default.yaml").read_text(encoding="utf-8"))["notes"])


@pytest.mark.parametrize(
    ("text", "left", "counts"),
    [
        ("It was dark.\nTODO: darker\nHe lit a match.", "It was dark.\nHe lit a match.", {"todo_line": 1}),
        ("a\n\n- [ ] TODO fix the storm\n\nb", "a\n\n\nb", {"todo_line": 1}),
        ("He went [TODO: where?] home.", "He went home.", {"bracketed": 1}),
        ("A whale.[1]\n\n[1] Not a fish.\n\nB", "A whale.\n\n\nB", {"footnote": 1, "footnote_mark": 1}),
        ("One <!-- cut\nthis --> two.", "One two.", {"comment": 1}),
        ("Дождь.\nПРОВЕРИТЬ год\nПрим. ред.: нет\nСнег.", "Дождь.\nСнег.", {"todo_line": 1, "note_line": 1}),
        ("Go {{check}}, {{again}}now.", "Go,now.", {"braces": 2}),
    ],
)
def test_notes_are_taken_out_and_counted(text: str, left: str, counts: dict[str, int]) -> None:
    assert SHIPPED.removed(text) == (left, Counter(counts))


@pytest.mark.parametrize(
    "prose",
    [
        "Todo el mundo lo sabe.",
        "Edith noted: it was late.",
        "He made a note of it [and left].",
        "Note how the sea darkens.",
        "«Проверить часы», сказал он.",
    ],
)
def test_prose_is_left_alone(prose: str) -> None:
    assert SHIPPED.removed(prose) == (prose, Counter())


@given(st.text(alphabet="aT[]O D:\n1{}%<!->", max_size=60))
def test_nothing_is_added_whatever_the_text(text: str) -> None:
    left, counts = SHIPPED.removed(text)
    assert not Counter(left) - Counter(text)
    assert (left == text) == (not counts)


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("a*", "matches the empty text")])
def test_a_pattern_that_is_none_is_refused_by_its_name(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"notes.mine: .*{message}"):
        Notes({"mine": pattern})
