"""Words of the demo and of the base's world never meet, and fall apart into syllables in one way."""

from __future__ import annotations

from random import Random

import pytest

from stages.knowledge.invented_words import SYLLABLES, invent_word, is_reserved, split_word


@pytest.mark.parametrize("reserved", [True, False])
def test_words_say_whose_they_are(reserved: bool) -> None:
    random = Random(1)
    words = {invent_word(random, reserved) for _ in range(2000)}
    assert len(words) > 1500
    assert {is_reserved(word) for word in words} == {reserved}


def test_each_pair_of_syllables_is_read_back_as_it_was_put_together() -> None:
    assert all(split_word(first + second) == (first, second) for first in SYLLABLES for second in SYLLABLES)


@pytest.mark.parametrize("word", ["keeper", "Ba", "Bakoba", "the", ""])
def test_other_words_belong_to_nobody(word: str) -> None:
    assert split_word(word) is None
    assert not is_reserved(word)
