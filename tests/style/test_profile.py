from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.style.profile import StyleProfile, histogram, spoken_and_told
from stages.style.system_prompt import system_prompt

STORY = 'I walked to the sea. The sea was calm; I sat down.\n\n"Who goes there?" she asked. I said nothing, and she left me.'


def test_exact_figures() -> None:
    profile = StyleProfile.of([STORY], "en")
    assert profile.sentence_lengths == [5, 7, 5, 7]
    assert profile.value("words_per_sentence") == 6
    assert profile.value("words_per_paragraph") == 12
    assert profile.value("dialogue_share") == 3 / 24
    assert profile.value("semicolons_per_1000") == 1000 / 24
    assert profile.value("first_person_share") == 4 / 6  # I, I, I, me against she, she
    assert profile.value("past_tense_share") == 1.0


def test_russian_dialogue_person_and_tense() -> None:
    text = "-- Здравствуйте, -- сказал он тихо. -- Вы поедете?\n\nЯ молчала и смотрела в окно."
    speech, told = spoken_and_told(text.split("\n\n"))
    assert speech.split() == ["Здравствуйте,", "Вы", "поедете?"]
    assert told.split() == ["сказал", "он", "тихо.", "Я", "молчала", "и", "смотрела", "в", "окно."]
    profile = StyleProfile.of([text], "ru")
    assert profile.value("first_person_share") == 0.5
    assert profile.value("past_tense_share") == 1.0


def test_what_a_language_gives_no_cues_for_is_left_out() -> None:
    profile = StyleProfile.of(["Das ist ein Satz."], "de")
    assert profile.value("past_tense_share") is None
    assert "person" not in system_prompt(profile)
    assert system_prompt(profile).count("code de") == 1


def test_variety_is_over_a_moving_window() -> None:
    assert StyleProfile.of([" ".join(["same"] * 300)], "en").value("word_variety") == 1 / 100
    letters = "abcdefghijklmnopqrstuvwxyz"
    distinct = " ".join(a + b for a in letters for b in letters)
    assert StyleProfile.of([distinct], "en").value("word_variety") == 1.0


def test_the_system_prompt_says_what_was_measured() -> None:
    english = system_prompt(StyleProfile.of([STORY], "en"))
    assert "Your sentences are short: 6 words on average, most between 5 and 7." in english
    assert "You narrate in the first person in the past tense." in english
    assert "About 12 % of the words are dialogue." in english
    assert "semicolons" in english
    russian = system_prompt(StyleProfile.of(["Он ушёл. Она осталась дома и молчала."], "ru"))
    assert "Повествование от третьего лица, в прошедшем времени." in russian


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_text_gives_a_profile_and_a_prompt(texts: list[str]) -> None:
    profile = StyleProfile.of(texts, "en")
    assert "{" not in system_prompt(profile)
    assert all(value >= 0 for value in profile.to_json()["features"].values())


def test_histogram() -> None:
    assert histogram([1, 5, 6, 99], width=5, num_bins=3) == [0.5, 0.25, 0.25]
    assert histogram([], 5, 2) == [0, 0]


def test_an_empty_profile_has_no_quantiles() -> None:
    assert StyleProfile.of([], "en").sentence_quantile(0.5) == 0
    assert StyleProfile.of([], "en").value("dialogue_share") is None
    assert StyleProfile.of(["One two. Three."], "en").sentence_quantile(0.9) == pytest.approx(2)
